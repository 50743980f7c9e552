"""How long a process waits for the others that write to the same SQLite file."""

CONNECT_ARGS = {"timeout": 120}
