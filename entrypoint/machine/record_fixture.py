"""Record what the doctor reads of this host, for tests: `python -m dsv4_serve.entrypoint.machine.record_fixture`."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from .host import Host, read_host
from .requirements import Asked
from .topology import Topology, read_topology


@dataclass(frozen=True)
class Recording:
    """One host: `about` says where and when it was recorded, or that it was constructed and from what."""

    about: str
    host: Host
    topology: Topology


def record(about: str) -> Recording:
    """Read this host as for a plan that takes every visible GPU; names of folders and GPUs' UUIDs are left out."""
    host = read_host(Asked(gpus=1, group=1, env=dict(os.environ)))
    if not host.driver:
        raise AssertionError("a plan for a GPU reads the driver")
    topology = read_topology(host.driver, host.visible.indexes)
    gpus = tuple(dataclasses.replace(gpu, uuid=f"GPU-{gpu.index}") for gpu in host.driver.gpus)
    driver = dataclasses.replace(host.driver, gpus=gpus)
    return Recording(about, dataclasses.replace(host, driver=driver, home="/root", caches=(), ports=()), topology)


def load(text: str) -> Recording:
    """Return a recording from its JSON; raise pydantic's ValidationError for any other text."""
    from pydantic import TypeAdapter

    return TypeAdapter(Recording).validate_json(text)


def main(words: list[str]) -> None:
    """Write the recording of this host to a file."""
    recording = dataclasses.asdict(record(" ".join(words[1:])))
    Path(words[0]).write_text(json.dumps(recording, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
