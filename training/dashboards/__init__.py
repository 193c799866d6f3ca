"""What lies under a home, shown: the same panels as a page here and as a workspace of Weights & Biases."""
