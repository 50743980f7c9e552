"""Who carries a call out: one client for threads, one for the event loop, and what each does to a connection."""
