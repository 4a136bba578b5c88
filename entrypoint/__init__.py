"""From a profile's name to a running vLLM: read data, resolve a plan, start the engine."""
