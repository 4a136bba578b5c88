"""
Measure what `--tool-strict-level function` costs while a model drafts, on a checkpoint that writes one known tool call.

    python -m qualification.gpu.tool_strict --work FOLDER --record cells.jsonl --deadline 230

One server, started once with the flag. The same requests run with its grammar (tool_choice auto) and without one
(tool_choice none, the tools stay in the prompt), so the difference is the grammar. k is 3 for one request and 1 for two
(`num_speculative_tokens_per_batch_size`). One line of JSON for each cell, as soon as it is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from dsv4_serve.demo.deepseek_v4 import FLASH, LAYOUTS, Dims, write
from dsv4_serve.demo.tokenizer import DSML, END_OF_THOUGHT, EOS, THINK, spelled
from dsv4_serve.demo.v4_text import CHARACTERS, READABLE_MARKS, Walk
from dsv4_serve.entrypoint.client import counters
from qualification.gpu import served, session, this_host

SMALL = Dims(hidden=1024, experts=64, vocab=256)
"""For a CPU, whose router has 64 experts at least."""
OPEN = f'\n\n<{DSML}tool_calls>\n<{DSML}invoke name="'
NAME = "tool_000"
PARAMETER = f'">\n<{DSML}parameter name="text" string="true">'
CLOSE = f"</{DSML}parameter>\n</{DSML}invoke>\n</{DSML}tool_calls>"
OTHER_CLOSE = f"\n{CLOSE}"
"""Ends the walk through the characters, where a grammar forces another name than the model's."""
K_BY_LOAD = [[1, 1, 3], [2, 4, 1]]
STREAMS = {3: 1, 1: 2}
"""Requests at a time, for each k."""
MODEL = "known"
SECONDS = 180.0
_SALT = count()


def walk(size: int) -> tuple[Walk, str]:
    """Return a walk through `size` tokens that answers a chat with one call, and the argument of that call."""
    fixed = (*CHARACTERS, OPEN, NAME, PARAMETER, CLOSE, OTHER_CLOSE)
    words = tuple(f" word{n}" for n in range(size - len(READABLE_MARKS) - len(fixed)))
    ids = {token: n for n, token in enumerate((*READABLE_MARKS, *map(spelled, (*fixed, *words))))}
    chat = (THINK, END_OF_THOUGHT, OPEN, NAME, PARAMETER, *words, CLOSE, EOS)
    successors = list(range(len(ids)))
    for cycle in (chat, (*CHARACTERS, OTHER_CLOSE)):
        tokens = [ids[token if token in READABLE_MARKS else spelled(token)] for token in cycle]
        for here, there in pairwise((*tokens, tokens[0])):
            successors[here] = there
    return Walk(ids, READABLE_MARKS, successors), "".join(words)


def tools(number: int) -> list[dict[str, Any]]:
    """Return tools with one required string and one integer each."""
    text, times = {"type": "string"}, {"type": "integer"}
    parameters = {"type": "object", "required": ["text"], "properties": {"text": text, "times": times}}
    names = [f"tool_{n:03}" for n in range(number)]
    return [{"type": "function", "function": {"name": name, "parameters": parameters}} for name in names]


@dataclass(frozen=True)
class TimedAnswer:
    """One streamed answer: seconds to the first token and to the last, tokens, calls, and how it ended."""

    first: float
    whole: float
    tokens: int
    calls: Mapping[int, tuple[str, str]]
    finish: str

    def well_formed(self, name: str) -> bool:
        """Tell whether a client can run it: one call of this name, with a JSON object that has the required text."""
        try:
            (call,) = self.calls.values()
            return call[0] == name and isinstance(json.loads(call[1])["text"], str)
        except (ValueError, LookupError, TypeError):
            return False


def ask(port: int, number: int, choice: Any) -> TimedAnswer:
    """Ask once, as a stream, past the prefix cache."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "go"}],
        "tools": tools(number),
        "tool_choice": choice,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,  # else the parser holds back what may become a call, and no chunk tells of it
        "temperature": 0,
        "max_tokens": 400,
        "cache_salt": f"{os.getpid()}-{next(_SALT)}",
        "chat_template_kwargs": {"thinking": False},
    }
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    began = time.monotonic()
    first, tokens, finish, calls = 0.0, 0, "", dict[int, tuple[str, str]]()
    with urllib.request.urlopen(request, timeout=SECONDS) as lines:
        for event in events(lines):
            if "error" in event:
                raise served.Ended(f"{number} tools, tool_choice {choice}: {event['error']}")
            for choices in event["choices"]:
                delta = choices["delta"]
                if choices.get("token_ids"):
                    first = first or time.monotonic() - began
                for call in delta.get("tool_calls") or ():
                    had = calls.get(call["index"], ("", ""))
                    calls[call["index"]] = (
                        had[0] + (call["function"].get("name") or ""),
                        had[1] + (call["function"].get("arguments") or ""),
                    )
                finish = choices.get("finish_reason") or finish
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    return TimedAnswer(first, time.monotonic() - began, tokens, calls, finish)


def events(lines: Any) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream."""
    for line in lines:
        text = line.decode().strip()
        if text.startswith("data: ") and text != "data: [DONE]":
            yield json.loads(text.removeprefix("data: "))


def cell(port: int, number: int, k: int, level: str, repeats: int) -> dict[str, Any]:
    """Measure one cell: a first request alone, whose grammar may not be compiled yet, then `repeats` at each stream."""
    choice = "auto" if level == "function" else "none"
    cold = ask(port, number, choice)
    before, began = read(port), time.monotonic()
    with ThreadPoolExecutor(STREAMS[k]) as pool:
        answers = list(pool.map(lambda _: ask(port, number, choice), range(repeats * STREAMS[k])))
    seconds, after = time.monotonic() - began, read(port)
    drafted, accepted = after.drafted - before.drafted, after.accepted - before.accepted
    decoding = sum(one.whole - one.first for one in answers) / STREAMS[k]
    return {
        "first_request_ttft_s": round(cold.first, 4),
        "ttft_s": round(sum(one.first for one in answers) / len(answers), 4),
        "output_tokens_per_second": round(sum(one.tokens for one in answers) / seconds, 2),
        "decode_tokens_per_second": round(sum(one.tokens for one in answers) / decoding, 2),
        "tokens": sum(one.tokens for one in answers),
        "drafts": after.drafts - before.drafts,
        "drafted": drafted,
        "accepted": accepted,
        "acceptance": round(accepted / drafted, 4) if drafted else None,
        "well_formed": sum(one.well_formed(NAME) for one in answers) if level == "function" else None,
        "answers": len(answers),
        "finish": sorted({one.finish for one in answers}),
    }


def forced(port: int, number: int) -> dict[str, Any]:
    """Force calls that the model would not make: of each of the last four tools, by name, and `required`."""
    names = [f"tool_{n:03}" for n in range(1, number)][-4:]
    answers = [(ask(port, number, {"type": "function", "function": {"name": name}}), name) for name in names]
    answers.append((ask(port, number, "required"), NAME))
    wrong = [
        {"name": name, "finish": answer.finish, "tokens": answer.tokens, "calls": list(answer.calls.values())}
        for answer, name in answers
        if not answer.well_formed(name)
    ]
    return {"answers": len(answers), "well_formed": len(answers) - len(wrong), "malformed": wrong}


def compile_seconds(number: int, tokenizer: Path) -> dict[str, float] | None:
    """Return the seconds that xgrammar takes to compile the grammar of `function`, twice, outside of the server."""
    try:
        import xgrammar
        from transformers import AutoTokenizer  # type: ignore[import-untyped, unused-ignore]
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionToolsParam
        from vllm.tool_parsers.structural_tag_registry import get_model_structural_tag
        from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

        vocabulary = AutoTokenizer.from_pretrained(str(tokenizer))
        compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo.from_huggingface(vocabulary), cache_enabled=False)
        params = [ChatCompletionToolsParam.model_validate(tool) for tool in tools(number)]
        level = ToolStrictLevel.FUNCTION
        tag = get_model_structural_tag("deepseek_v4", params, "auto", reasoning=False, strict_level=level)
        assert tag
        found = {}
        for name in ("first", "second"):
            began = time.monotonic()
            compiler.compile_structural_tag(tag)
            found[name] = round(time.monotonic() - began, 4)
        return found
    except Exception as error:
        print(f"compile time not measured: {type(error).__name__}: {error}", flush=True)
        return None


def read(port: int) -> counters.Counters:
    """Return the counters, once the last step is over."""
    time.sleep(0.3)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return counters.read(answer.read().decode())


def command(path: Path, port: int, options: argparse.Namespace) -> list[str]:
    """Return the argv of vLLM; its memory flags are those of the known-answer layouts."""
    flags = [*served.FLAGS]
    flags[flags.index("--max-model-len") + 1] = str(options.context)
    schedule = {"method": "mtp", "num_speculative_tokens": 3, "num_speculative_tokens_per_batch_size": K_BY_LOAD}
    if options.cpu:
        kept = ("--enforce-eager", "--max-model-len", "--max-num-seqs", "--max-num-batched-tokens")
        flags = [word for one, two in pairwise((*flags, "")) for word in _kept(one, two, kept)]
    parsers = ["--tool-call-parser", "deepseek_v4", "--reasoning-parser", "deepseek_v4", "--enable-auto-tool-choice"]
    return [
        *[sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(path), *flags, *parsers],
        *["--tokenizer-mode", "deepseek_v4", "--tool-strict-level", "function", "--served-model-name", MODEL],
        *["--port", str(port), "--speculative-config", json.dumps(schedule)],
    ]


def _kept(word: str, value: str, names: tuple[str, ...]) -> list[str]:
    if word not in names:
        return []
    return [word] if value.startswith("--") else [word, value]


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a cell at a time, until the deadline."""
    until = time.monotonic() + options.deadline
    dims = SMALL if options.cpu else FLASH
    path = Path(options.work) / f"tool-strict-{options.layout}"
    known, _ = walk(dims.vocab)
    write(path, options.layout, dims, walk=known)
    log, port = path.with_suffix(".log"), options.port
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(path, port, options), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            served.wait_until_ready(process, f"http://127.0.0.1:{port}/health", until)
            ready = time.monotonic()
            ask(port, 1, "none")
            yield {
                "cell": "start",
                "ready_s": round(ready - began, 1),
                "first_answer_s": round(time.monotonic() - ready, 1),
            }
            for number in options.tools:
                for k, streams in STREAMS.items():
                    for level in ("function", "off"):
                        if time.monotonic() > until - 5:
                            return
                        name = {"cell": "speed", "tools": number, "k": k, "streams": streams, "level": level}
                        yield name | cell(port, number, k, level, options.repeats)
            for number in options.tools:
                if time.monotonic() < until - 10:
                    yield {"cell": "forced", "tools": number, "level": "function", **forced(port, number)}
        except (served.Ended, OSError) as error:
            tail = log.read_text(errors="replace")[-1500:]
            yield {"cell": "failed", "message": f"{type(error).__name__}: {error}", "log": tail}
        finally:
            session.end(process, 15)
    for number in options.tools:
        yield {"cell": "compile", "tools": number, "seconds": compile_seconds(number, path)}


def main() -> int:
    """Write each cell to the record and to stdout; 1 where the server failed."""
    parser = argparse.ArgumentParser(description="--tool-strict-level function, with drafts.")
    parser.add_argument("--work", required=True, help="directory for the checkpoint and the log")
    parser.add_argument("--record", required=True, help="a file that gets one line of JSON for each cell")
    parser.add_argument("--layout", choices=LAYOUTS, default="native")
    parser.add_argument("--tools", type=int, nargs="+", default=[5, 40, 120])
    parser.add_argument("--repeats", type=int, default=3, help="requests of each stream in a cell")
    parser.add_argument("--deadline", type=float, default=230)
    parser.add_argument("--context", type=int, default=49152)
    parser.add_argument("--port", type=int, default=8190)
    parser.add_argument("--cpu", action="store_true", help="a smaller checkpoint, to try this program")
    options = parser.parse_args()
    Path(options.work).mkdir(parents=True, exist_ok=True)
    short, facts = this_host.hardware()[0], {**this_host.facts(), "layout": options.layout}
    failed = False
    for found in measure(options):
        failed = failed or found["cell"] == "failed"
        line = json.dumps(found | facts)
        with Path(options.record).open("a", encoding="utf-8") as record:
            record.write(line + "\n")
        print(f"{short} {json.dumps(found)}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
