"""What the official API's documentation says about its creates, its list and its uploads; no I/O."""
