"""Reading vLLM's log: the phase of a start, the root cause of an exit."""
