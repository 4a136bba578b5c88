"""The stages, one a module; each has one function that returns its outcome."""
