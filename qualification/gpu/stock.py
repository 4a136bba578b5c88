"""Another server than ours, watched from outside: for vLLM, the phases of its start as the supervisor reads them from the log."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from dsv4_serve.entrypoint.client import http
from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.client.errors import Unreachable
from dsv4_serve.entrypoint.client.local_replica import ReplicaEnded, Started, free_port
from dsv4_serve.entrypoint.vllm_log import exit_cause
from dsv4_serve.entrypoint.vllm_log.parser import LogLine
from dsv4_serve.entrypoint.vllm_log.root_cause import LogNotes
from dsv4_serve.entrypoint.vllm_log.startup_phase import StartupProgress
from qualification.gpu import session


@contextlib.contextmanager
def stock(
    argv: list[str], environ: dict[str, str], out: Path, say: Callable[[str], None], patience: float
) -> Iterator[Started]:
    """Run it, yield after its first completion, and leave nothing of its session behind."""
    out.mkdir(parents=True, exist_ok=True)
    port, log, spent = free_port(), out / "log", {}
    began = time.monotonic()
    process = subprocess.Popen(
        [*argv, "--host", "127.0.0.1", "--port", str(port)],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    reader = threading.Thread(target=_read, args=(process, log, spent, began), daemon=True)
    reader.start()
    where = Endpoint(f"http://127.0.0.1:{port}")
    say(f"{' '.join(argv)} on port {port}; log: {log}")
    try:
        _until_up(process, where, log, began + patience)
        body = {
            "model": where.models()[0].id,
            "prompt": "t5 t6 t7",
            "max_tokens": 2,
            "temperature": 0,
            "ignore_eos": True,
        }
        httpx.post(f"{where.url}/v1/completions", json=body, timeout=patience, trust_env=False).raise_for_status()
        yield Started(
            where, log, {"phases": {name: round(s, 1) for name, s in spent.items()}, "caches": "unknown"}, process
        )
    finally:
        session.end(process, 20)
        reader.join(5)


def _until_up(process: subprocess.Popen[bytes], where: Endpoint, log: Path, until: float) -> None:
    while time.monotonic() < until:
        if process.poll() is not None:
            time.sleep(1)
            lines = log.read_text(errors="replace").splitlines()
            notes = LogNotes()
            for line in lines:
                notes.feed(LogLine.parse(line))
            reason = exit_cause.classify(notes, process.returncode, phase="starting", was_ready=False)
            raise ReplicaEnded(f"it ended with {process.returncode}: {reason.sentence} Root cause: {reason.root}")
        with contextlib.suppress(Unreachable):
            if http.get(f"{where.url}/health", None).is_success:
                return
        time.sleep(0.5)
    raise ReplicaEnded(
        f"not ready in time: {(log.read_text(errors='replace').splitlines() or ['nothing said'])[-1][-300:]}"
    )


def _read(process: subprocess.Popen[bytes], log: Path, spent: dict[str, float], began: float) -> None:
    progress, last = StartupProgress(began), began
    with log.open("wb") as out:
        for line in process.stdout or ():
            out.write(line)
            out.flush()
            before, now = progress.phase, time.monotonic()
            progress.feed(LogLine.parse(line.decode(errors="replace").rstrip("\r\n")), now)
            if progress.phase != before:
                spent[before] = spent.get(before, 0.0) + now - last
                last = now
