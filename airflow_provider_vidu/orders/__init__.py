"""Submit once, pay once: the request, the record of the order, and the rules for retries and clears."""
