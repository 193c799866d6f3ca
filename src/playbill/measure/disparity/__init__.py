"""Do groups of people, or of items, get the same? Exposure, outcome, offer and price parity, with intervals."""
