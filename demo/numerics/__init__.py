"""Small random DeepSeek-V4 checkpoints, a reference that computes their answers, and the comparison with an engine."""
