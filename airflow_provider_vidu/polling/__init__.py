"""When to ask again, and when to stop. No clock, no I/O."""
