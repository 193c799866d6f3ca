"""May it go out: measure a bundle beside what one would do instead, hold it against rules, publish it."""
