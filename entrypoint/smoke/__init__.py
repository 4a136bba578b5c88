"""What a user would try by hand after a start, as checks with a verdict."""
