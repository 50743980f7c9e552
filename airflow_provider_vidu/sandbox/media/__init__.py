"""Pictures, films and sounds, drawn without a library."""
