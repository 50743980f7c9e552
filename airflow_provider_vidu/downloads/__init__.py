"""A URL into a store: the transfer, its decisions, and the proof of what arrived."""
