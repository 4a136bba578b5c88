"""docs/results/engines.md: SGLang beside dsv4-serve, from qualification/results/engines.toml and its results."""
