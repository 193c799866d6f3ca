"""Several retrievers, one order: saved scores, the formula that joins them, and its fit on people none has seen."""
