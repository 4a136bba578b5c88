"""Let a vLLM of another installation import our middlewares, which its `--middleware` names."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ...healthcheck import client_routes, error_body, key_guard
from ..errors import HostError
from . import executable

MODULES = (client_routes, error_body, key_guard)
"""The middlewares and what they import; these import the standard library only."""


def variables(vllm: str, environ: Mapping[str, str], run_folder: Path) -> dict[str, str]:
    """Return PYTHONPATH with a folder that holds the middlewares alone; nothing for the vLLM beside this command."""
    if Path(executable.locate(vllm, environ)).parent == Path(sys.executable).parent:
        return {}
    folder = run_folder / "python"
    package = folder / "dsv4_serve/healthcheck"
    try:
        package.mkdir(parents=True, exist_ok=True)
        for source in (Path(str(module.__file__)) for module in MODULES):
            (package / source.name).write_bytes(source.read_bytes())
    except OSError as error:
        raise HostError(
            f"{package} cannot be written ({error.strerror}); set DSV4_RUN_DIR to a writable folder."
        ) from None
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), environ.get("PYTHONPATH"))))}
