"""Apply a reviewed series of diffs to exactly the vLLM that it was made for. Standard library only."""
