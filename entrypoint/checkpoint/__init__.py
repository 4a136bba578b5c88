"""A checkpoint on disk: its safetensors headers, its layout, and the model that it holds."""
