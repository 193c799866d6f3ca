"""What is handed over: one versioned, checksummed folder with all that serving needs and nothing that can run code."""
