"""A timed all-reduce between the GPUs, in child processes."""
