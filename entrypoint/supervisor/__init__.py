"""One vLLM from its start to its end."""
