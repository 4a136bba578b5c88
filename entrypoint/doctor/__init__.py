"""Find every problem that can be known before weights load, each with the change that fixes it."""
