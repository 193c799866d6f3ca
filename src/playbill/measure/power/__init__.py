"""How many people a test needs before it starts: `playbill measure question=power`."""
