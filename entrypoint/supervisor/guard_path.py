"""Let a vLLM of another installation import our middlewares, which its `--middleware` names."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ...healthcheck import client_routes, error_body, key_guard, key_limits, key_usage
from .. import key_file, plain_file
from ..errors import HostError
from . import executable

_FILES = {
    "healthcheck": (client_routes, error_body, key_guard, key_limits, key_usage),
    "entrypoint": (key_file, plain_file),
}
"""The middlewares and what they import; these import the standard library, and key_usage prometheus_client."""


def variables(vllm: str, environ: Mapping[str, str], run_folder: Path) -> dict[str, str]:
    """Return PYTHONPATH with a folder of the middlewares alone; nothing for the vLLM beside this command."""
    if Path(executable.locate(vllm, environ)).parent == Path(sys.executable).parent:
        return {}
    folder = run_folder / "python"
    copies = folder / "dsv4_serve"
    try:
        for room, modules in _FILES.items():
            (copies / room).mkdir(parents=True, exist_ok=True)
            for source in (Path(str(module.__file__)) for module in modules):
                (copies / room / source.name).write_bytes(source.read_bytes())
    except OSError as error:
        raise HostError(
            f"{copies} cannot be written ({error.strerror}); set DSV4_RUN_DIR to a writable folder."
        ) from None
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), environ.get("PYTHONPATH"))))}
