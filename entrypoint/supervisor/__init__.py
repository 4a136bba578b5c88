"""Supervise one vLLM from its start to its end."""
