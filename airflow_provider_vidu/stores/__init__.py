"""Where files go: local and remote stores, their names, schemes and roots."""
