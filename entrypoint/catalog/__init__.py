"""Profile files: their schema, reading them, and what `dsv4 profiles` lists."""
