"""Apply a reviewed series of diffs to exactly the vLLM it was made for, or to nothing. Standard library only."""
