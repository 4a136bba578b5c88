"""A client for the API of a running vLLM."""
