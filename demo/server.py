"""Start `dsv4 serve` without other settings from the environment, and read its messages."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..entrypoint.client import local_replica
from ..entrypoint.client.local_replica import ServeProcess
from ..entrypoint.resolve import environment

MESSAGE = re.compile(r"^dsv4: (?!health on port)(.+)$", re.MULTILINE)


@contextmanager
def serving(profile: str, model: Path, port: int, log: Path, vllm: Path | None = None) -> Iterator[ServeProcess]:
    """
    Run `dsv4 serve` with this profile, checkpoint and port, and with no other setting of the environment.

    `vllm` is a folder with a vLLM to use in place of the installed one.
    """
    others = {*environment.Variables.model_fields, "VLLM_API_KEY"}
    inherited = {name: value for name, value in os.environ.items() if name not in others}
    environ = {**inherited, **_first_on_path(vllm), "PROFILE": profile, "MODEL": str(model)}
    health_port = local_replica.free_port(port + 1 if port < 65535 else 0)
    with local_replica.serving([], environ, log, port, health_port) as server:
        yield server


def _first_on_path(vllm: Path | None) -> dict[str, str]:
    if vllm is None:
        return {}
    return {"PYTHONPATH": os.pathsep.join([str(vllm), *filter(None, [os.environ.get("PYTHONPATH")])])}


def messages(server: ServeProcess) -> list[str]:
    """Return what `dsv4 serve` itself has logged so far."""
    return MESSAGE.findall(local_replica.tail(server.log))
