"""What a server tells Prometheus: see FIGURES.md beside this room for every figure."""
