"""
`vllm` for many short runs: a process that has imported it once, and forks for each of them.

    python -m qualification.gpu.warm_generator /run/generator.sock bench serve --help

The load generator's import takes 15 s on a GPU host, longer than many a row. `running` starts such a process and yields
the path of a program to name with DSV4_VLLM; the line above is what that program runs.
"""

from __future__ import annotations

import array
import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.support.become import become

IMPORTED = (
    "vllm.entrypoints.cli.main",
    "vllm.benchmarks.serve",
    "vllm.benchmarks.datasets",
    "transformers.models.auto",
)
FIRST = ("bench", "serve", "--help")
"""What is run once in the process itself, for all that it imports."""
MODULE = "qualification.gpu.warm_generator"


@contextlib.contextmanager
def running(modules: Sequence[str] = IMPORTED) -> Iterator[str]:
    """
    Yield the program, whose runs wait for the import; the first module's `main` is what runs.

    The process ends with the block.
    """
    with tempfile.TemporaryDirectory(prefix="generator-") as folder, socket.socket(socket.AF_UNIX) as listener:
        where, program = Path(folder, "socket"), Path(folder, "vllm")
        listener.bind(str(where))
        listener.listen()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {MODULE} {where} "$@"\n')
        program.chmod(0o755)
        code = f"from {MODULE} import serve; serve({listener.fileno()}, {tuple(modules)!r})"
        process = subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            yield str(program)
        finally:
            process.kill()
            process.wait()


def serve(number: int, modules: Sequence[str]) -> None:
    """Import the modules, then fork for each connection to the listening socket of this file number, one at a time."""
    main = _main(modules)
    with socket.socket(fileno=number) as listener:
        while True:
            with listener.accept()[0] as connection:
                text, numbers, *_ = socket.recv_fds(connection, 1 << 20, 2)
                request = json.loads(text)
                child = os.fork()
                if not child:
                    become(main, ["vllm", *request["argv"]], request["environ"], request["folder"], numbers)
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                for each in numbers:
                    os.close(each)
                with contextlib.suppress(OSError):
                    connection.sendall(str(status).encode())


def _main(modules: Sequence[str]) -> Callable[[], object]:
    found: Callable[[], object] = [importlib.import_module(name) for name in modules][0].main  # noqa: RUF015
    sys.argv = ["vllm", *FIRST]
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.suppress(SystemExit):
        found()
    return found


def ask(where: str, argv: Sequence[str]) -> int:
    """Run it there with our arguments, variables, folder and output; return its exit status."""
    request = json.dumps({"argv": argv, "environ": dict(os.environ), "folder": str(Path.cwd())}).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1, 2]))]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(where)
        connection.sendmsg([request], rights)
        return int(connection.recv(16) or b"1")


if __name__ == "__main__":
    sys.exit(ask(sys.argv[1], sys.argv[2:]))
