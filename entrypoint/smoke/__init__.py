"""Check a replica as a user would after a start, with a verdict."""
