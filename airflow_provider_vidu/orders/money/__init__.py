"""What orders cost, and the limits on it."""
