"""What changes between bundles: profiles, sessions, catalogue changes and the durable log of events."""
