"""Whether and when to send again, when to poll next, and when to stop. No clock, no I/O."""
