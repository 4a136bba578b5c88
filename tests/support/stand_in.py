"""
A stand-in for vLLM: a real process with a child, a log like vLLM's, and the HTTP routes that the supervisor asks.

It has one fault, named by STAND_IN, that real vLLM does not make at will. What real vLLM does is in tests/faults.
`replay` prints the log REPLAY_LOG and ends: at once, or while it serves, once the file REPLAY_WHEN is there.
On SIGTERM it drains as vLLM does: it answers /metrics until its last request is done, and logs each step.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import shared_memory
from pathlib import Path

import uvicorn

FAULT = os.environ.get("STAND_IN", "")
SLOW = float(os.environ.get("STAND_IN_SECONDS", "0.01"))  # a token of a stream
PORT = int(sys.argv[sys.argv.index("--port") + 1])
SPECULATES = "--speculative-config" in sys.argv
SHUTDOWN = float(os.environ.get("STAND_IN_SHUTDOWN", "60"))  # seconds that running requests get
state = {
    "finished": 0,
    "running": 0,
    "steps": 0,
    "single": 0,
    "drafted": 0,
    "accepted": 0,
    "frozen": False,
    "stopping": False,
}


def replay() -> None:
    while (when := os.environ.get("REPLAY_WHEN")) and not Path(when).exists():
        time.sleep(0.05)
    sys.stdout.buffer.write(Path(os.environ["REPLAY_LOG"]).read_bytes())
    sys.stdout.flush()
    os._exit(1)


def compute(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))


def log(line: str, process: str = "APIServer") -> None:
    print(f"({process} pid={os.getpid()}) INFO 11-22 06:00:00 [stand_in.py:1] {line}", flush=True)


async def app(scope: dict, receive, send) -> None:
    path = scope["path"]
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if path == "/health":
        return await answer(send, b"")
    if path == "/metrics":
        return await answer(send, metrics().encode(), "text/plain")
    if path == "/v1/models":
        return await answer(send, json.dumps({"object": "list", "data": [{"id": "stand-in"}]}).encode())
    return await complete(json.loads(body), send)


async def complete(request: dict, send) -> None:
    tokens = int(request.get("max_tokens", 1))
    stream = request.get("stream")
    state["single"] += tokens == 1
    if FAULT == "freeze" and state["single"] > 3:  # while idle: the first canaries after the start came back
        state["frozen"] = True
    state["running"] += 1
    if stream:
        await start(send, "text/event-stream")
    words = []
    try:
        for number in range(tokens):
            words.append(await token(number, SLOW if stream else 0.002))
            if stream:
                chunk = json.dumps({"usage": {"completion_tokens": number + 1}, "choices": [{"text": words[-1]}]})
                await send({"type": "http.response.body", "body": f"data: {chunk}\n\n".encode(), "more_body": True})
        if FAULT == "garbled" and state["running"] > 1:
            words = [" Привет 你好 مرحبا 안녕"] * tokens
        state["finished"] += 1
    finally:
        state["running"] -= 1
    if stream:
        return await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
    if FAULT == "nan" and request.get("logprobs") is not None:
        text = json.dumps({"error": {"message": "Out of range float values are not JSON compliant: nan", "code": 500}})
        return await answer(send, text.encode(), status=500)
    numbers = {"token_logprobs": [-0.1] * tokens}
    choice = {"text": "".join(words), "token_ids": [hash(word) % 1000 for word in words], "logprobs": numbers}
    return await answer(send, json.dumps({"id": "1", "model": "stand-in", "choices": [choice]}).encode())


async def token(number: int, seconds: float) -> str:
    while state["frozen"]:
        await asyncio.sleep(3600)
    await asyncio.sleep(seconds)
    state["steps"] += 1
    if SPECULATES:
        state["drafted"] += 1
        state["accepted"] += FAULT != "scrambled"
    return f" w{number}"


def metrics() -> str:
    label = '{engine="0",model_name="stand-in"}'
    lines = [
        f"vllm:num_requests_running{label} {state['running']}",
        f"vllm:num_requests_waiting{label} 0",
        f'vllm:request_success_total{{finished_reason="length",engine="0"}} {state["finished"]}',
        f"vllm:kv_cache_usage_perc{label} {state['running'] / 100}",
        f"vllm:iteration_tokens_total_count{label} {state['steps']}",
        f"vllm:generation_tokens_total{label} {state['steps']}",
        f"vllm:prompt_tokens_total{label} {state['steps']}",
        *(f'vllm:time_to_first_token_seconds_bucket{{le="{le}"}} {state["finished"]}' for le in ("0.25", "+Inf")),
    ]
    if SPECULATES:
        lines += [
            f"vllm:spec_decode_num_drafts_total{label} {state['drafted']}",
            f"vllm:spec_decode_num_draft_tokens_total{label} {state['drafted']}",
            f"vllm:spec_decode_num_accepted_tokens_total{label} {state['accepted']}",
            f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{engine="0",position="0"}} {state["accepted"]}',
        ]
    return "\n".join(lines) + "\n"


async def start(send, kind: str, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode())]})


async def answer(send, body: bytes, kind: str = "application/json", status: int = 200) -> None:
    await start(send, kind, status)
    await send({"type": "http.response.body", "body": body})


class Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: object) -> None:
        if FAULT == "ignores-sigterm" or state["stopping"]:
            return
        state["stopping"] = True
        asyncio.get_running_loop().call_soon_threadsafe(asyncio.ensure_future, self.drain())

    async def drain(self) -> None:
        log("[shutdown] API server: shutdown triggered")
        log(f"[shutdown] EngineCore: start mode=drain timeout={SHUTDOWN:.0f}s", "EngineCore")
        began = time.monotonic()
        while state["running"] and FAULT != "cuts" and time.monotonic() - began < SHUTDOWN:
            await asyncio.sleep(0.02)
        if state["running"]:
            os._exit(0)  # as vLLM's API server does when its engine died
        log("[shutdown] EngineCore: request processing complete; starting resource teardown", "EngineCore")
        await asyncio.sleep(0.2)
        self.should_exit = True


def storm() -> None:
    """Log as fast as the reader allows: bursts of short lines, and now and then one of 10 MB."""
    short = b"(EngineCore pid=1) INFO 11-22 06:00:00 [stand_in.py:1] " + b"x" * 40 + b"\n"
    pieces = [short * 700, b"\n" * 4096, b"y" * (10 << 20) + b"\n"]
    for number in itertools.count():
        os.write(1, pieces[2 if number % 1000 == 999 else number % 2])


def guarded(inner):
    """The app with the middlewares of --middleware, as vLLM adds them: the last one outermost."""
    for at, word in enumerate(sys.argv):
        if word == "--middleware":
            module, name = sys.argv[at + 1].rsplit(".", 1)
            inner = getattr(importlib.import_module(module), name)(inner)
    return inner


if __name__ == "__main__":
    if FAULT == "replay" and "REPLAY_WHEN" not in os.environ:
        replay()
    title = "import ctypes; ctypes.CDLL(None).prctl(15, b'VLLM::EngineCore')"  # PR_SET_NAME, which keeps 15 characters
    child = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {title}; time.sleep(3600)"
    engine = subprocess.Popen([sys.executable, "-c", child], start_new_session=FAULT == "ignores-sigterm")
    memory = shared_memory.SharedMemory(create=True, size=1 << 16)
    print(f"stand-in {os.getpid()} {engine.pid} {memory.name}", flush=True)
    if FAULT == "replay":
        threading.Thread(target=replay, daemon=True).start()
    if FAULT == "watches":  # as vLLM's API server ends when its engine died
        threading.Thread(target=lambda: (engine.wait(), os._exit(1)), daemon=True).start()
    if FAULT == "computes":
        compute(float(os.environ["STAND_IN_COMPUTES"]))
    if FAULT == "silent":
        time.sleep(3600)
    if FAULT != "computes":
        log("non-default args: {}")
    if FAULT == "key-error":
        print(
            "Traceback (most recent call last):\nKeyError: 'layers.1.ffn.experts.w13_weight'",
            file=sys.stderr,
            flush=True,
        )
        sys.exit(1)
    if FAULT == "stalls":
        print("(EngineCore pid=1) INFO 11-22 06:00:00 [pynccl.py:113] vLLM is using nccl==2.28.9", flush=True)
        time.sleep(3600)
    if FAULT == "storm":
        threading.Thread(target=storm, daemon=True).start()
    if FAULT != "computes":
        log("Starting vLLM server on http://127.0.0.1")
    Server(uvicorn.Config(guarded(app), port=PORT, log_level="error", lifespan="off")).run()
    engine.send_signal(signal.SIGKILL)
    memory.unlink()
