"""A timed all-reduce between the GPUs, in processes of its own."""
