"""A checkpoint on disk: safetensors headers, its layout, and which model it is."""
