"""A known truth: a simulated service that generates the tables and responds to decisions."""
