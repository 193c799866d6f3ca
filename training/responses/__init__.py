"""What people answer: how likely somebody likes what they try, from their answers before and from tallies."""
