"""Fixtures: a Python with lm-eval, a chat endpoint that gives the answers it is told, questions of GSM8K's shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support import command
from tests.support.http_servers import answer_json
from tests.support.patience import slowness

ROOT = Path(__file__).resolve().parents[3]
KEY = "sk-not-to-be-kept"
SECONDS = 240


@pytest.fixture(scope="session")
def harness_python() -> str:
    """A Python with lm-eval as requirements/eval.txt pins it, kept in build/ until the lock changes."""
    lock, venv = ROOT / "requirements" / "eval.txt", ROOT / "build" / "eval-venv"
    python, made = venv / "bin" / "python", venv / "lock.txt"
    if not made.exists() or made.read_bytes() != lock.read_bytes():
        uv = str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)], check=True)
        options = ["--quiet", "--python", str(python), "--require-hashes", "--requirements", str(lock)]
        subprocess.run([uv, "pip", "install", *options], check=True)
        made.write_bytes(lock.read_bytes())
    return str(python)


@dataclass
class Chat:
    """The endpoint: `requests` are the bodies of all requests, `answer` makes an answer of one."""

    answer: Callable[[dict[str, Any]], dict[str, Any]]
    seconds: float = 0.0
    key: str | None = None
    root: str = "canada-quant/DeepSeek-V4-Flash-W4A16-FP8-MTP"
    requests: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def chat() -> Iterator[Chat]:
    """A chat endpoint on a free port, which answers sums right."""
    chat = Chat(lambda body: completion(f"#### {total(body)}"))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listed = {"id": "deepseek-v4-flash", "root": chat.root, "max_model_len": 8192}
            self.send({"data": [listed]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            chat.requests.append(body)
            time.sleep(chat.seconds)
            answer = chat.answer(body)
            self.send(answer, answer.pop("status", 200))

        def send(self, body: dict[str, Any], status: int = 200) -> None:
            if chat.key and self.headers["Authorization"] != f"Bearer {chat.key}":
                body, status = {"error": "Unauthorized"}, 401
            answer_json(self, body, status)

        def log_message(self, *_args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chat.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield chat
        server.shutdown()


def total(body: dict[str, Any]) -> int:
    """Return the sum that a request asks for."""
    words = body["messages"][-1]["content"].split()
    return sum(int(word.strip("?")) for word in words if word.strip("?").isdecimal())


def completion(content: str | None, reasoning: str = "", why: str = "stop") -> dict[str, Any]:
    """Return an answer as vLLM gives it."""
    message = {"role": "assistant", "content": content, "reasoning": reasoning}
    usage = {"prompt_tokens": 50, "completion_tokens": 10}
    return {"choices": [{"index": 0, "message": message, "finish_reason": why}], "usage": usage}


@pytest.fixture
def questions(tmp_path: Path) -> Callable[[int], Path]:
    """A file for --tasks: `gsm8k` asks sums of ours in place of the data set of the Hub."""

    def make(number: int) -> Path:
        rows = [{"question": f"What is {n} + {n}?", "answer": f"Add.\n#### {2 * n}"} for n in range(number)]
        data, tasks = tmp_path / "sums.jsonl", tmp_path / "tasks.toml"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        tasks.write_text(
            f"""[gsm8k]
ask = ["gsm8k"]
folder = "gsm8k"
thinking = "chat"
metrics = ["exact_match,strict-match", "exact_match,flexible-extract"]
prompt-tokens = 1024
chat-tokens = 2048
[gsm8k.config]
dataset_path = "json"
dataset_name = "default"
num_fewshot = 2
[gsm8k.config.dataset_kwargs.data_files]
train = "{data}"
test = "{data}"
"""
        )
        return tasks

    return make


@pytest.fixture
def start(chat: Chat, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """`dsv4 eval ARGS…` against the chat endpoint, with results in tmp_path/out; keywords are variables."""

    def started(*args: str, **env: str) -> subprocess.Popen[str]:
        argv = [*command.ARGV, *_argv(chat, tmp_path), *args]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, env=_environ(tmp_path) | env, stdout=pipe, stderr=pipe, text=True)

    return started


@pytest.fixture
def run(chat: Chat, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """The same to its end: exit status, stdout, stderr."""

    def ended(*args: str, **env: str) -> tuple[int, str, str]:
        given = _environ(tmp_path) | env
        done = command.run(*_argv(chat, tmp_path), *args, env=given, timeout=SECONDS * slowness())
        return done.returncode, done.stdout, done.stderr

    return ended


def _argv(chat: Chat, folder: Path) -> list[str]:
    return ["eval", "--url", chat.url, "--health", "none", "--out", str(folder / "out")]


def _environ(folder: Path) -> dict[str, str]:
    """No Hub: what a test asks for is on this disk."""
    keep = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "PYTHONPATH")}
    return {**keep, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
