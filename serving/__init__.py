"""The counter: Ray Serve answers requests, Ray Data scores audiences. Never torch."""
