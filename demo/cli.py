"""
`make demo`: serve the tiny checkpoint, ask it a question, show what came back.

The only module here that prints and exits.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from ..entrypoint.client.local_replica import ServeProcess, free_port
from ..entrypoint.errors import UserError
from ..entrypoint.exit_status import ExitStatus
from ..entrypoint.listen import API_PORT, HEALTH_PORT
from .errors import DemoError
from .exhibits import EXHIBITS, Exhibit
from .llama_words import QUESTION
from .question import MeasuredAnswer, ask
from .server import messages, serving

PAUSE = 5.0  # seconds between two lines of progress


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return its status: 0 for the known answer, 1 for anything else, 130 for Ctrl-C before it."""
    options = parser().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # even if a background shell ignores SIGINT
        signal.signal(number, interrupt)
    try:
        run(options)
    except (DemoError, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"error: {error}; the demo keeps its files in {options.folder}; --folder names another folder",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("\nstopped before the answer", file=sys.stderr)
        return ExitStatus.INTERRUPTED
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the demo."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dsv4-serve" / "demo"
    options = argparse.ArgumentParser(
        prog="make demo", description="Serve a tiny model on this CPU and ask it a question."
    )
    options.add_argument("--profile", choices=EXHIBITS, default="demo", help="demo (a Llama) or demo-v4 (DeepSeek-V4)")
    options.add_argument("--check", action="store_true", help="stop after the answer")
    options.add_argument("--port", type=port_number, default=API_PORT, help="port to listen on (%(default)s)")
    options.add_argument("--folder", type=Path, default=cache, help="for the checkpoint and the log (%(default)s)")
    options.add_argument("--limit", type=float, default=600, help="seconds that loading may take (600)")
    return options


def port_number(text: str) -> int:
    """Read a port; argparse makes its message from the ValueError."""
    if not 1 <= (port := int(text)) <= 65535:
        raise ValueError
    return port


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that the server is stopped."""
    raise KeyboardInterrupt


def run(options: argparse.Namespace) -> None:
    """Write the checkpoint, serve it, ask, and check the answer; then serve until Ctrl-C, unless `--check` is given."""
    exhibit = EXHIBITS[options.profile](options.folder)
    print(f"checkpoint  {exhibit.checkpoint}")
    port = free_port(options.port)
    if port != options.port:
        print(f"port        {options.port} is taken; using {port}")
    log = options.folder / f"server-{port}.log"
    settings = f"PROFILE={options.profile} MODEL={exhibit.checkpoint} PORT={port}"
    if exhibit.vllm:
        settings = f"PYTHONPATH={exhibit.vllm} {settings}"
    print(f"server      {settings} dsv4 serve\nlog         {log}", flush=True)
    with serving(options.profile, exhibit.checkpoint, port, log, exhibit.vllm) as server:
        load(server, options.limit)
        print("\n".join(messages(server)), end="\n\n", flush=True)
        ask(server, QUESTION)  # the first request also warms the engine up
        show(exhibit, ask(server, QUESTION))
        if not options.check:
            stay(server, options.profile)
    print("stopped")


def load(server: ServeProcess, limit: float) -> None:
    """Show progress until the server is ready."""
    began = time.monotonic()
    for seconds, phase in server.until_ready(limit, PAUSE):
        print(f"loading     {seconds:3.0f} s  {phase}", flush=True)
    print(f"ready       {time.monotonic() - began:.0f} s after start\n", flush=True)


def show(exhibit: Exhibit, answer: MeasuredAnswer) -> None:
    """Print question, answer and figures. Raise DemoError for a wrong answer, or if few drafts were accepted."""
    print(f"> {QUESTION}\n({answer.reasoning})\n{answer.text}\n")
    print(f"{answer.tokens} output tokens in {answer.seconds:.2f} s: {answer.tokens_per_second:.0f} tokens/s")
    print(f"{answer.accepted} of {answer.drafted} draft tokens accepted: {answer.acceptance:.0%}\n", flush=True)
    if (answer.reasoning, answer.text) != (exhibit.reasoning, exhibit.answer):
        raise DemoError(f"this is not the known answer, which is:\n({exhibit.reasoning})\n{exhibit.answer}")
    if answer.acceptance < exhibit.acceptance:
        raise DemoError(
            f"{answer.acceptance:.0%} of the draft tokens were accepted; at least {exhibit.acceptance:.0%} are expected"
        )
    print("The answer is the known one.", flush=True)


def stay(server: ServeProcess, model: str) -> None:
    """Wait for Ctrl-C. Raise DemoError when the server ends by itself."""
    print("\n".join(suggestions(server, model)), end="\n\n", flush=True)
    try:
        server.process.wait()
    except KeyboardInterrupt:
        print("\nstopping", flush=True)
        return
    raise DemoError(server.ended())


def suggestions(server: ServeProcess, model: str) -> list[str]:
    """Return what to try while the server is up, each line as it can be typed."""
    url, health = server.endpoint.url, server.endpoint.health
    standard = (server.port, server.health_port) == (API_PORT, HEALTH_PORT)
    command = f"{os.path.relpath(Path(sys.executable).with_name('dsv4'))}"
    where = "" if standard else f" --url {url} --health {health}"
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
    return [
        f"Serving the OpenAI API at {url}/v1 and its health at {health} until Ctrl-C. Try in another shell:\n",
        f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'",
        f"  curl {health}/startupz",
        f"  {command} smoke{where}",
        f"  {command} bench{where}",
    ]
