"""vLLM as a child process: its log is passed on and read line by line, and ending it leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import json_log, procfs
from ..vllm_log import offload_region
from ..vllm_log.parser import LogLine
from ..vllm_log.records import RecordReader, VllmRecord
from . import executable, leftovers
from .log_mask import LogMask
from .log_reader import LogReader, LogStream
from .stop_signals import first_of

SOCKET_PATH, SOCKET_NAME = 107, 36  # bytes: sun_path of unix(7), and the names that vLLM gives
CHUNK = 1 << 16  # bytes, as much as a pipe holds
TOGETHER = 0.5  # seconds without a line, after which a traceback is taken to be whole
LOG_SECONDS = 1.0  # seconds for the last output to get through a slow terminal


@dataclass(frozen=True)
class Passing:
    """How vLLM's log is passed on: `secrets` are masked; `write` writes to a file descriptor, in threads of its own."""

    secrets: Collection[str] = ()
    write: Callable[[int, bytes], bool] | None = None


class SharedFiles:
    """Its files in /dev/shm, as far as they were seen mapped or named in its log; `named` is set by the latter."""

    def __init__(self) -> None:
        self.paths: set[Path] = set()
        self.named = asyncio.Event()

    def hear(self, line: LogLine) -> None:
        """Remember the file that a line names."""
        if path := offload_region.created(line):
            self.paths.add(path)
            self.named.set()


class VllmProcess:
    """
    A running vLLM: leader of a process group, writing to our stdout and stderr, temporary files in a folder of its own.

    `on_line` is called in the event loop with each line of its log.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        folder: Path,
        reader: LogReader,
        pumps: Sequence[threading.Thread],
        shared: SharedFiles,
    ) -> None:
        self._process, self._folder, self._reader, self._pumps = process, folder, reader, pumps
        self._shared = shared

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        environ: Mapping[str, str],
        on_line: Callable[[LogLine], None],
        *,
        secret_flags: Mapping[str, str | list[str]] | None = None,
        passing: Passing | None = None,
    ) -> VllmProcess:
        """
        Start it; raise NotFound (127) or NotExecutable (126) when that is impossible.

        `secret_flags` go into a file that only this user can read; `passing` says how its log is passed on.
        """
        program = executable.locate(argv[0], environ)
        folder = own_folder(tempfile.gettempdir())
        config = ["--config", str(secret_config(folder, secret_flags))] if secret_flags else []
        pipes = [os.pipe() for _ in range(2)]
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *argv[1:],
                *config,
                env=_environment(environ, folder),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipes[0][1],
                stderr=pipes[1][1],
                process_group=0,
                preexec_fn=procfs.end_with_parent,
            )
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            for read_end, _ in pipes:
                os.close(read_end)
            raise executable.not_executable(argv[0], error) from None
        finally:
            for _, write_end in pipes:
                os.close(write_end)
        shared = SharedFiles()

        def heard(line: LogLine) -> None:
            shared.hear(line)
            on_line(line)

        reader = LogReader(heard)
        passing = passing or Passing()
        pump = _pump_json if json_log.enabled(environ) else _pump
        pumps = [
            threading.Thread(target=pump, args=(read_end, out, reader, passing), daemon=True)
            for (read_end, _), out in zip(pipes, (1, 2), strict=True)
        ]
        for thread in pumps:
            thread.start()
        return cls(process, folder, reader, pumps, shared)

    @property
    def pid(self) -> int:
        """Process id of the leader, which is the id of its group too."""
        return self._process.pid

    @property
    def folder(self) -> Path:
        """Its folder for temporary files."""
        return self._folder

    def shared_memory(self) -> set[Path]:
        """Return its files in /dev/shm that were noted."""
        return self._shared.paths

    async def nap(self, seconds: float) -> None:
        """Wait so long, or until its log names another file in /dev/shm."""
        await first_of(self._shared.named.wait(), asyncio.sleep(seconds))
        self._shared.named.clear()

    def family(self) -> list[int]:
        """Return the ids of the leader and of all processes below it."""
        return [self.pid, *(process.pid for process in procfs.descendants(self.pid))]

    async def wait(self) -> int:
        """Wait for the leader to end and return its status; minus N when signal N ended it."""
        return await self._process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to the leader, which passes it on as it sees fit."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def note_shared_memory(self) -> None:
        """Remember its files in /dev/shm, to remove them when their owners are killed."""
        self._shared.paths |= procfs.shared_files(self.family())

    async def finish_log(self) -> None:
        """Wait until its last output was read, or LOG_SECONDS seconds for processes that still hold the log open."""
        await self._pass_on_log()
        await self._reader.finish()

    async def _pass_on_log(self) -> None:
        until = time.monotonic() + LOG_SECONDS
        for pump in self._pumps:
            await asyncio.to_thread(pump.join, max(0.0, until - time.monotonic()))

    async def end(self, patience: float, hurry: asyncio.Event) -> list[int]:
        """
        End it: SIGTERM, `patience` seconds or until `hurry`, SIGKILL for every descendant; pass its log on to the end.

        Return the ids of processes that survive (in a driver call that does not return).
        """
        self.note_shared_memory()
        if self._process.returncode is None and not hurry.is_set():
            self.signal(signal.SIGTERM)
            await first_of(self._process.wait(), hurry.wait(), asyncio.sleep(patience))
        remaining = await asyncio.to_thread(procfs.end_all, os.getpid())
        if self.pid not in remaining:
            await self._process.wait()
        await asyncio.to_thread(procfs.reap)
        await self._pass_on_log()
        await asyncio.to_thread(procfs.remove, self._shared.paths, remaining)
        shutil.rmtree(self._folder, ignore_errors=True)
        return remaining


def _environment(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """
    Return vLLM's variables: its temporary files go to `folder`, except for what torch keeps there for later starts.

    Ours come last: setproctitle fails if the first variable is changed, as torch changes that of its cache.
    """
    kept = environ.get("TORCHINDUCTOR_CACHE_DIR") or f"{tempfile.gettempdir()}/torchinductor_{os.getuid()}"
    ours = {"VLLM_RPC_BASE_PATH": str(folder), "TMPDIR": str(folder), "TORCHINDUCTOR_CACHE_DIR": kept}
    return {**environ, **ours}


def own_folder(base: str) -> Path:
    """Make a folder below `base`, or below /tmp where the path of a socket in it would be too long for the kernel."""
    short = len(base) + len("/dsv4-12345678/") + SOCKET_NAME <= SOCKET_PATH
    return Path(tempfile.mkdtemp(prefix=leftovers.PREFIX, dir=base if short else "/tmp"))  # noqa: S108


def secret_config(folder: Path, flags: Mapping[str, str | list[str]]) -> Path:
    """Write flags for vLLM's --config, which takes YAML, and so JSON; return the file."""
    file = folder / "flags.yaml"
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
        json.dump(flags, opened, ensure_ascii=False)
    return file


def _pump(read_end: int, out: int, reader: LogReader, passing: Passing) -> None:
    """Pass the log on and have it read, in a thread, so that a stopped terminal does not stop us."""
    stream, mask, write = LogStream(), LogMask(passing.secrets), passing.write or write_all
    writable, last = True, b"\n"
    while chunk := os.read(read_end, CHUNK):
        if chunk := mask.feed(chunk):
            writable, last = writable and write(out, chunk), chunk[-1:]
            reader.feed(stream, chunk)
    if rest := mask.close():
        writable, last = writable and write(out, rest), rest[-1:]
        reader.feed(stream, rest)
    reader.close(stream)
    if writable and last != b"\n":  # so that our next message begins on a new line
        write(out, b"\n")
    os.close(read_end)


def _pump_json(read_end: int, out: int, reader: LogReader, passing: Passing) -> None:
    """Do the same with a JSON object for each record; what is read for phases and causes stays as vLLM wrote it."""
    stream, mask, write = LogStream(), LogMask(passing.secrets), passing.write or write_all
    writable, records = True, RecordReader()

    def take(chunk: bytes) -> Iterator[VllmRecord]:
        reader.feed(stream, chunk)
        return records.feed(chunk)

    def pass_on(ended: Iterable[VllmRecord]) -> None:
        nonlocal writable
        lines = b"".join(map(_object, ended))
        writable = writable and write(out, lines)

    while True:
        if records.waits and not select.select([read_end], [], [], TOGETHER)[0]:
            pass_on(records.flush())
        elif chunk := os.read(read_end, CHUNK):
            pass_on(take(mask.feed(chunk)))
        else:
            break
    pass_on(take(mask.close()))
    pass_on(records.close())
    reader.close(stream)
    os.close(read_end)


def _object(record: VllmRecord) -> bytes:
    fields = {"process": record.first.process, "logger": record.first.source}
    if event := json_log.event(record.message):
        return json_log.line(json_log.VLLM, record.level, "request", **event).encode() + b"\n"
    return json_log.line(json_log.VLLM, record.level, record.message, **fields).encode() + b"\n"


def write_all(out: int, chunk: bytes) -> bool:
    """Write all of it; tell whether the reader is still there. A full disk loses lines of the log, but ends nothing."""
    try:
        while chunk:
            chunk = chunk[os.write(out, chunk) :]
    except BrokenPipeError:
        return False
    except OSError:
        return True
    return True
