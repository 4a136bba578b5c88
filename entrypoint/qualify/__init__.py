"""Show on this machine, with small checkpoints, that vLLM computes, drafts and serves DeepSeek-V4 rightly."""
