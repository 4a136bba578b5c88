"""
What the doctor's checks of the host and of its topology answer on this machine, and how long reading it takes.

    python -m qualification.gpu.host_checks RANKS
"""

from __future__ import annotations

import os
import sys
import time

from dsv4_serve.entrypoint.doctor import registry
from dsv4_serve.entrypoint.machine.host import read_host
from dsv4_serve.entrypoint.machine.machine import read_machine
from dsv4_serve.entrypoint.machine.requirements import HostRequirements
from dsv4_serve.entrypoint.machine.topology import choose_set, closest


def main(ranks: int) -> None:
    """Print the problems, the time, and the group of GPUs with its NCCL settings."""
    required = HostRequirements(
        gpus=ranks, group=ranks, capability="9.0", hardware="h200", interconnect="nvlink", env=dict(os.environ)
    )
    began = time.perf_counter()
    host = read_host(read_machine(os.environ), required)
    topology = host.machine.topology
    took = time.perf_counter() - began
    for facts, checks in ((host, registry.GPUS + registry.HOST), (topology, registry.TOPOLOGY)):
        for check in checks:
            if problem := check(facts, required):
                print(check.name, problem)
    group = closest(topology, ranks)
    print(f"host and topology read in {took * 1000:.0f} ms; group {group}; NCCL set {choose_set(topology, group)}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
