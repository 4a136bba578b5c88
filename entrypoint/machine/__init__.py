"""What this host has: GPUs through NVML, how they are connected, memory, ports and compilers."""
