"""`playbill load`: an open-loop load generator for a running server."""
