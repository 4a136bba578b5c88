"""
Record what the doctor reads of this machine, for tests/entrypoint/machine/recorded.

    python -m tools.record_host FILE ABOUT
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from dsv4_serve.entrypoint.machine.machine import Machine, read_machine


@dataclass(frozen=True)
class Recording:
    """One machine: `about` says where and when it was recorded, or that it was constructed and from what."""

    about: str
    machine: Machine


def record(about: str) -> Recording:
    """Read this machine; UUIDs of GPUs are left out."""
    machine = read_machine(os.environ)
    gpus = tuple(dataclasses.replace(gpu, uuid=f"GPU-{gpu.index}") for gpu in machine.driver.gpus)
    return Recording(about, dataclasses.replace(machine, driver=dataclasses.replace(machine.driver, gpus=gpus)))


def load(text: str) -> Recording:
    """Return a recording from its JSON; raise pydantic's ValidationError for any other text."""
    from pydantic import TypeAdapter

    return TypeAdapter(Recording).validate_json(text)


def main(file: Path, about: str) -> None:
    """Write the recording of this machine to a file."""
    file.write_text(json.dumps(dataclasses.asdict(record(about)), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), " ".join(sys.argv[2:]))
