"""Many trainings over a space of settings: trials as processes of their own, followed and stopped by Ray Tune."""
