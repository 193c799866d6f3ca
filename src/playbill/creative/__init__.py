"""Which image of an item a person is shown: eligibility, choice with known propensities, what is learned from it."""
