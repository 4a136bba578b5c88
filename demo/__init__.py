"""A demonstration without a GPU: a tiny checkpoint with a known answer, served by real vLLM on a CPU."""
