"""Ask the installed vLLM which combinations of flags, scheme and GPU it starts with."""
