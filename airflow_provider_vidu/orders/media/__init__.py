"""Media files in a request: which fields hold them, how a file is opened and checked, how it is sent."""
