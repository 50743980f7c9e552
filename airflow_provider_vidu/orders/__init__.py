"""Submit once, pay once: the request, the record of the order, and what a retry or a clear may do."""
