"""Creative heads: which way of showing an item a person answers, learned from decisions whose chances are known."""
