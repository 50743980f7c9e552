"""The official API as documented: creates, list, uploads. No I/O."""
