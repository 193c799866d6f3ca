"""What a policy that never ran would have been worth, from the log of one that did."""
