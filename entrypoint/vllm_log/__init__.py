"""What vLLM's log says: the phase of a start, the root cause of an end."""
