"""Free slots of an account: the queue in a triggerer, and how a task waits for its turn."""
