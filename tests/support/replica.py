"""A replica under test: `dsv4 serve` as users start it, queried, hurt and timed from outside."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from dsv4_serve.entrypoint.client.local_replica import free_port
from tests.support.patience import slowness

STEP = 0.1  # seconds between two looks


class Late(AssertionError):
    """Something did not happen in its time."""


@dataclass
class Stream:
    """One streamed completion: how many chunks of text came, and whether it was whole."""

    tokens: int
    got: int = 0
    done: bool = False
    error: str = ""
    accepted: threading.Event = field(default_factory=threading.Event)
    began: threading.Event = field(default_factory=threading.Event)


@dataclass
class Replica:
    """A running `dsv4 serve`. Ports are its own; its output goes to `log`, its record to `run_folder`."""

    process: subprocess.Popen[Any]
    port: int
    health_port: int
    log: Path
    run_folder: Path
    model: str

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def messages(self) -> list[str]:
        """The messages of the supervisor itself."""
        return [line for line in self.log_text().splitlines() if line.startswith("dsv4: ")]

    def last_exit(self) -> dict[str, Any]:
        """What the run directory says of its end."""
        return json.loads((self.run_folder / "last-exit.json").read_text())

    def stand_in_pids(self) -> list[int]:
        """The processes of the stand-in for vLLM: its server and its engine."""
        line = [line for line in self.log_text().splitlines() if line.startswith("stand-in ")][-1]
        return [int(word) for word in line.split()[1:3]]

    def ask(self, path: str, timeout: float = 5.0) -> tuple[int, str]:
        """GET of the health server; (0, why) without an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.health_port, timeout=timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError as error:
            return 0, str(error)
        finally:
            connection.close()

    def ready(self) -> bool:
        return self.ask("/readyz")[0] == 200

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> float:
        """Return the seconds until it holds; raise Late, with the end of the log. A busy machine gets longer."""
        began = time.monotonic()
        while time.monotonic() - began < seconds * slowness():  # the load may rise meanwhile
            if condition():
                return time.monotonic() - began
            time.sleep(STEP)
        raise Late(f"{what}: not in {time.monotonic() - began:.0f} s\n{self.log_text()[-3000:]}")

    def until_ready(self, seconds: float = 300) -> float:
        return self.until(lambda: self.ready() or self._ended(), seconds, "ready") if not self._ended() else 0.0

    def _ended(self) -> bool:
        if self.process.poll() is None:
            return False
        raise Late(f"ended with {self.process.returncode} instead\n{self.log_text()[-3000:]}")

    def until_ended(self, seconds: float = 120) -> tuple[int, float]:
        """Return the exit status and the seconds it took."""
        took = self.until(lambda: self.process.poll() is not None, seconds, "ended")
        return self.process.returncode, took

    def files(self) -> list[str]:
        """What it has in its folder for temporary files."""
        return [path.name for path in (self.log.parent / "tmp").iterdir()]

    def family(self) -> list[psutil.Process]:
        """All processes below, vLLM's own first."""
        try:
            below = psutil.Process(self.process.pid).children(recursive=True)
            return [process for process in below if process.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return []

    def member(self, title: str) -> psutil.Process:
        """The process that vLLM titles so: `VLLM::EngineCore`, `VLLM::Worker_TP1`; the API server is the child."""
        names = []
        for process in self.family():
            with suppress(psutil.Error):  # it ended meanwhile
                names.append(process.name())
                if title in names[-1] or title in " ".join(process.cmdline()[:1]):
                    return process
        raise Late(f"no process {title!r} among {names}")

    def api_server(self) -> psutil.Process:
        return psutil.Process(self.process.pid).children()[0]

    def stream(self, tokens: int, prompt: str = "Once upon a time") -> Stream:
        """Start a streamed completion in a thread."""
        stream = Stream(tokens)
        threading.Thread(target=self._read_stream, args=(stream, prompt), daemon=True).start()
        return stream

    def _read_stream(self, stream: Stream, prompt: str) -> None:
        body = {"model": self.model, "prompt": prompt, "max_tokens": stream.tokens, "temperature": 0}
        body |= {"ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            stream.error = "" if answer.status == 200 else f"{answer.status}: {answer.read(500)!r}"
            stream.accepted.set()
            for line in answer:
                if not line.startswith(b"data: "):
                    continue
                if line.strip() == b"data: [DONE]":
                    stream.done = True
                    break
                chunk = json.loads(line[6:])
                stream.got = (chunk.get("usage") or {}).get("completion_tokens", stream.got)
                stream.began.set()
            if not stream.done and not stream.error:
                stream.error = f"the answer ended after {stream.got} tokens, without [DONE]"
        except (OSError, http.client.HTTPException, ValueError) as error:
            stream.error = f"{type(error).__name__}: {error}"
        finally:
            stream.accepted.set()
            stream.began.set()
            connection.close()

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)


Start = Callable[..., AbstractContextManager[Replica]]
"""`dsv4 serve WORDS` with what a test has in common; keywords are environment variables."""


@contextmanager
def replica(folder: Path, *words: str, model_name: str, seconds_to_stop: float = 60.0, **env: str) -> Iterator[Replica]:
    """
    Run `dsv4 serve WORDS` with a clean environment and `env`, its log and run directory in `folder`.

    Whatever is left after the block is killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port, health_port = int(env.pop("PORT", 0)) or free_port(), free_port()
    ours = ("PROFILE", "MODEL", "HARDWARE", "TP", "VLLM_API_KEY", "API_KEY_FILE")
    inherited = {k: v for k, v in os.environ.items() if k not in ours and not k.startswith(("DSV4_GATE", "DSV4_SUPER"))}
    settings = {
        "PORT": str(port),
        "DSV4_HEALTH_PORT": str(health_port),
        "DSV4_HEALTH_HOST": "127.0.0.1",
        "DSV4_RUN_DIR": str(folder / "run"),
        "DSV4_TERMINATION_LOG": str(folder / "termination-log"),
        "TMPDIR": str(folder / "tmp"),
    }
    (folder / "tmp").mkdir(exist_ok=True)
    (folder / "termination-log").touch()
    log = Path(env.pop("LOG", folder / "log"))
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "dsv4_serve.entrypoint", "serve", *words],
            env={**inherited, **settings, **env},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Replica(process, port, health_port, log, folder / "run", model_name)
    family: list[psutil.Process] = []
    try:
        yield running
    finally:
        family = running.family()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(seconds_to_stop * slowness())
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for left in psutil.wait_procs(family, timeout=1)[1]:
            left.kill()


def fill(disk: Path) -> None:
    """Write until nothing more fits."""
    size = 1 << 20
    with (disk / "filler").open("wb", buffering=0) as file:
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def leaked_memory() -> set[str]:
    """
    Files of /dev/shm that no living process has mapped.

    Semaphores are left out: their maker maps them under another name. soak.py counts them, in a /dev/shm of its own.
    """
    mapped = "".join(_read(maps) for maps in Path("/proc").glob("[0-9]*/maps"))
    shared = {str(path) for path in Path("/dev/shm").iterdir() if not path.name.startswith("sem.")}
    return {path for path in shared if path not in mapped}


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
