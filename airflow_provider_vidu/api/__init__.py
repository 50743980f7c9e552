"""One request to Vidu, and what its answer means: dialects, connection, clients."""
