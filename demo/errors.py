"""The error that ends the demo early."""


class DemoError(Exception):
    """One or two sentences: what was seen, where, and what to do."""
