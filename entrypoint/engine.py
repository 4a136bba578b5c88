"""The engine as a child process: started with its words read line by line, stopped so that nothing of it stays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dsv4_serve.entrypoint import processes
from dsv4_serve.entrypoint.errors import NotExecutable, NotFound
from dsv4_serve.entrypoint.log_lines import Splitter


class Engine:
    """
    A running vLLM: leader of a process group, writing to our stdout and stderr, its sockets in a folder of its own.

    `on_line` is called in the event loop with each line of its log.
    """

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process, self._folder = process, folder
        self._shared: set[Path] = set()

    @classmethod
    async def start(cls, argv: Sequence[str], environ: Mapping[str, str], on_line: Callable[[str], None]) -> Engine:
        """Start it; raise NotFound (127) or NotExecutable (126) when that is impossible."""
        program = shutil.which(argv[0], path=environ.get("PATH", os.defpath))
        if program is None and not Path(argv[0]).exists():
            raise NotFound(f"{argv[0]}: not found, neither as a path nor on PATH; install it, or correct the name.")
        folder = Path(tempfile.mkdtemp(prefix="dsv4-"))
        pipes = [os.pipe() for _ in range(2)]
        try:
            process = await asyncio.create_subprocess_exec(
                program or argv[0],
                *argv[1:],
                env={**environ, "VLLM_RPC_BASE_PATH": str(folder)},  # sockets; vLLM leaves them behind when killed
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipes[0][1],
                stderr=pipes[1][1],
                process_group=0,
                preexec_fn=processes.end_with_parent,
            )
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            for read_end, _ in pipes:
                os.close(read_end)
            raise NotExecutable(
                f"{argv[0]}: cannot be executed ({error.strerror}); check its mode and format."
            ) from None
        finally:
            for _, write_end in pipes:
                os.close(write_end)
        loop = asyncio.get_running_loop()
        for (read_end, _), out in zip(pipes, (1, 2), strict=True):
            threading.Thread(target=_pump, args=(read_end, out, loop, on_line), daemon=True).start()
        return cls(process, folder)

    @property
    def pid(self) -> int:
        """Process id of the leader, which is the id of its group too."""
        return self._process.pid

    def family(self) -> list[int]:
        """Return the ids of the leader and of all processes below it."""
        return [self.pid, *processes.descendants(self.pid)]

    async def wait(self) -> int:
        """Wait for the leader to end and return its status; minus N when signal N ended it."""
        return await self._process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to the leader, which passes it on as it sees fit."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def note_shared_memory(self) -> None:
        """Remember what the engine keeps in /dev/shm, to remove it when its owners are killed."""
        self._shared |= processes.shared_files(self.family())

    async def end(self, patience: float = 0.0) -> list[int]:
        """
        End the engine for good: SIGTERM, `patience` seconds, SIGKILL for the group and every descendant.

        Return the ids of processes that even so are still there (in a driver call that does not return).
        """
        self.note_shared_memory()
        if self._process.returncode is None and patience > 0:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), patience)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()
        left = await asyncio.to_thread(processes.end_all, os.getpid())
        processes.remove(self._shared)
        shutil.rmtree(self._folder, ignore_errors=True)
        return left


def _pump(read_end: int, out: int, loop: asyncio.AbstractEventLoop, on_line: Callable[[str], None]) -> None:
    """Pass the engine's words on and read them; in a thread, as a terminal that is held up must not stop us."""
    splitter, writable = Splitter(), True
    while chunk := os.read(read_end, 1 << 16):
        writable = writable and _write(out, chunk)
        _tell(splitter.feed(chunk), loop, on_line)
    _tell(splitter.close(), loop, on_line)
    os.close(read_end)


def _tell(lines: list[str], loop: asyncio.AbstractEventLoop, on_line: Callable[[str], None]) -> None:
    for line in lines:
        with contextlib.suppress(RuntimeError):  # the loop is closed: we are on our way out
            loop.call_soon_threadsafe(on_line, line)


def _write(out: int, chunk: bytes) -> bool:
    """Write all of it; tell whether there is still someone to write to. A full disk loses words, not the engine."""
    try:
        while chunk:
            chunk = chunk[os.write(out, chunk) :]
    except BrokenPipeError:
        return False
    except OSError:
        return True
    return True
