"""Callbacks as tasks and triggers see them: the token of an order, and whether callbacks arrive."""
