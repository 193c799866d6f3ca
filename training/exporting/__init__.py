"""Hand-over: plain modules from checkpoints, graphs held against them, index and baselines, into a staged bundle."""
