"""Where embedding tables would lie on a cluster that need not be there: declared, planned, refused with the numbers."""
