"""The backends that come with the core."""
