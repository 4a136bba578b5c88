"""Let a vLLM of another installation import the middleware that asks for the key (`healthcheck/key_guard.py`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ...healthcheck import key_guard
from ..errors import HostError
from . import executable


def variables(vllm: str, environ: Mapping[str, str], run_folder: Path) -> dict[str, str]:
    """Return PYTHONPATH with a folder that holds the middleware alone; nothing for the vLLM beside this command."""
    if Path(executable.locate(vllm, environ)).parent == Path(sys.executable).parent:
        return {}
    folder = run_folder / "python"
    copy = folder / "dsv4_serve/healthcheck/key_guard.py"
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(Path(key_guard.__file__).read_bytes())
    except OSError as error:
        raise HostError(
            f"{copy} cannot be written ({error.strerror}); set DSV4_RUN_DIR to a writable folder."
        ) from None
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), environ.get("PYTHONPATH"))))}
