"""Where data comes from: one file a source, fetching with checksums and mirrors, and the job that prepares tables."""
