"""
A process that has imported the command, and forks for each command line that tests.support.command sends to it.

    python -m tests.support.fork_server CHANNEL

It has also read what each command would read again and nobody changes: the shipped profile files. Nothing else of the
product runs in it. It imports nothing that reads its environment when imported (huggingface_hub does).
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import socket
import sys
import threading
from contextlib import suppress
from typing import Any, NoReturn

from dsv4_serve.entrypoint.errors import ConfigError
from tests.support.become import become

IMPORTED = (
    *("catalog.listing", "resolve.what_fits", "resolve.resolution", "resolve.memory_inputs"),
    *("doctor.run", "doctor.report", "smoke.command", "report.page", "supervisor.supervisor"),
    *("containers.bundle", "weights.hub", "weights.manifest", "evals.evaluate"),
    *(f"cli.{name}" for name in ("main", "parser", "request", "output", "what_fits_text", "log", "program")),
    *(f"cli.{name}" for name in ("explain", "fit", "profiles", "doctor", "weights", "manifests", "serve", "bundle")),
)
LEFT_OUT = ("huggingface_hub", "pynvml", "torch", "vllm")


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    for name in IMPORTED:
        importlib.import_module(f"dsv4_serve.entrypoint.{name}")
    _read_shipped_files()
    assert not [name for name in LEFT_OUT if name in sys.modules]
    gc.freeze()
    running: dict[int, tuple[int, int]] = {}  # of each pidfd: the process, and the pipe that waits for its status
    while True:
        for ready in select.select([channel.fileno(), *running], [], [])[0]:
            if ready in running:
                child, pipe = running.pop(ready)
                os.write(pipe, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
                _close(ready, pipe)
                continue
            message, files, _, _ = socket.recv_fds(channel, 1 << 20, 3)
            if not message:
                return
            child = os.fork()
            if not child:
                channel.close()
                _close(*running, *(pipe for _, pipe in running.values()))
                _run(json.loads(message), files)
            running[os.pidfd_open(child)] = child, files[2]
            os.write(files[2], b"%d\n" % child)
            _close(*files[:2])


def _read_shipped_files() -> None:
    """Fill the caches of what a plan is made of: three quarters of what `dsv4 explain` costs once it is imported."""
    from tests.support.plans import CATALOG, request, resolved

    for kind in CATALOG.KINDS:
        for name in CATALOG.names(kind):
            CATALOG._file(kind, CATALOG.KINDS[kind][1], name, "").flags()
    for name in CATALOG.names("hardware"):
        with suppress(ConfigError):  # of some the number of GPUs has to be said
            resolved(request(hardware=name))


def _close(*files: int) -> None:
    for file in files:
        os.close(file)


def _run(message: dict[str, Any], files: list[int]) -> NoReturn:
    """Be the process that the message describes, to its end."""
    places = [place for place in message["env"].get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.path[:] = dict.fromkeys([*places, *sys.path])
    os.close(files[2])
    become(_command, ["dsv4", *message["argv"]], message["env"], message["cwd"], files[:2])


def _command() -> int:
    from dsv4_serve.entrypoint.cli.main import main

    try:
        return main()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


if __name__ == "__main__":
    main()
