"""Lists as they were shown, put in a better order: learned from which item of each was taken."""
