"""What the pinned vLLM knows: flags, variables, retired names, and how arguments are written."""
