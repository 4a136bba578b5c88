"""Read vLLM's log: the phase of a start, and the root cause of an exit."""
