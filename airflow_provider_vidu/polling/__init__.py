"""Decides when to repeat a request, when to poll next, and when to stop waiting. No I/O except in ``worker``."""
