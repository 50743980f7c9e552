"""The HTTP server of the sandbox: who may talk to it, and how answers are sent, faults of the transport included."""
