"""A replica over real HTTP: vLLM's server and the health server in one, sound but for the faults that it is given."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import takewhile
from typing import Any

from dsv4_serve.entrypoint.smoke.data import prompts
from tests.entrypoint.smoke import scripted_tools

CONTEXT = 20_000
WORDS = [
    "the",
    "keeper",
    "rowed",
    "out",
    "before",
    "dawn",
    "with",
    "bread",
    "and",
    "a",
    "lamp",
    "while",
    "gulls",
    "cried",
    "over",
    "every",
    "grey",
    "wave",
]
REASONING = "Nine sheep stay, and four come back."
NAN = "Out of range float values are not JSON compliant: nan"
NO_TOOLS = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'

PLAN = {
    "model-name": "w4a16",
    "profile": "128k",
    "hardware": "h200",
    "served-model-name": ["deepseek-v4-flash", "second/name"],
    "reasoning-parser": "deepseek_v4",
    "tool-call-parser": "deepseek_v4",
    "max-num-seqs": 4,
    "speculative-config.method": "mtp",
    "speculative-config.num_speculative_tokens": 1,
    "gate.tokens": 12,
    "gate.acceptance-floor.1": 0.4,
}


class Replica(ThreadingHTTPServer):
    """One replica; `faults` are names that the handler looks for, `plan` its settings (None: no health server)."""

    daemon_threads = True

    def __init__(self, faults: frozenset[str], plan: Mapping[str, Any] | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.plan = faults, plan
        self.requests: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.drafted = self.accepted = self.hits = 0
        self.cached: dict[str, str] = {}
        self.guard = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(*faults: str, plan: Mapping[str, Any] | None = PLAN) -> Iterator[Replica]:
    """Run one replica."""
    replica = Replica(frozenset(faults), plan)
    thread = threading.Thread(target=replica.serve_forever, daemon=True)
    thread.start()
    try:
        yield replica
    finally:
        replica.shutdown()
        replica.server_close()


class Refused(Exception):
    """An HTTP error with vLLM's body."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Handler(BaseHTTPRequestHandler):
    server: Replica

    def has(self, fault: str) -> bool:
        return fault in self.server.faults

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            names = ["deepseek-v4-flash"] if self.has("unlisted-name") else PLAN["served-model-name"]
            self.answer({"data": [{"id": name, "max_model_len": CONTEXT} for name in names]})
        elif self.path == "/plan" and self.server.plan is not None:
            settings = {name: {"value": value, "origin": "test"} for name, value in self.server.plan.items()}
            chosen = {name: self.server.plan[name] for name in ("model-name", "profile", "hardware")}
            self.answer({"argv": ["vllm", "serve"], "env": {}, "choices": chosen, "settings": settings})
        elif self.path == "/metrics" and not self.has("hidden-metrics"):
            drafts = "" if self.has("no-counters") else self.counters()
            hits = f'vllm:prefix_cache_hits_total{{engine="0"}} {self.server.hits}\n'
            self.send(200, f"vllm:num_requests_running 0\n{hits}{drafts}", "text/plain")
        else:
            self.send(404, "{}")

    def counters(self) -> str:
        counted = {
            "drafts": self.server.drafted,
            "draft_tokens": self.server.drafted,
            "accepted_tokens": self.server.accepted,
        }
        at = [self.server.accepted]
        if self.has("collapse"):  # two tokens in each draft: the first is right, the second never
            counted["drafts"] = counted["accepted_tokens"] = self.server.drafted // 2
            at = [self.server.drafted // 2, 0]
        lines = [f'vllm:spec_decode_num_{name}_total{{engine="0"}} {n}\n' for name, n in counted.items()]
        position = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
        lines += [f'{position}{{engine="0",position="{p}"}} {n}\n' for p, n in enumerate(at)]
        return "".join(lines)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.guard:
            self.server.bodies.append(body)
        try:
            self.require_parser(body)
            if self.path == "/detokenize":
                self.answer({"prompt": scripted_tools.text(body["tokens"])})
            elif self.path == "/v1/completions":
                self.answer(self.completion(body))
            elif body.get("stream") and body.get("tools"):
                self.stream_tools(body)
            elif body.get("stream"):
                self.stream(body)
            else:
                self.answer(self.chat(body))
        except Refused as error:
            self.answer({"error": {"message": error.message, "code": error.status}}, error.status)

    def require_parser(self, body: dict[str, Any]) -> None:
        if body.get("tools") and self.has("no-tool-parser"):
            raise Refused(400, NO_TOOLS)

    # --- completions

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["model"] != "deepseek-v4-flash" and self.has("refused-name"):
            raise Refused(404, f"The model `{body['model']}` does not exist.")
        if "logprobs" in body and body["max_tokens"] == 16 and self.has("nan"):
            raise Refused(400, NAN)
        with self.server.guard:
            self.server.requests[body["prompt"]] += 1
            again = self.server.requests[body["prompt"]] > 1 and "logprobs" in body
            self.server.drafted += 0 if self.has("no-drafts") else body["max_tokens"] // 2
            self.server.accepted = int(self.server.drafted * (0.02 if self.has("noise") else 0.8))
        words = self.words(body, again=again)
        text, stop = " ".join(words), (body.get("stop") or [""])[0]
        stopped = bool(stop) and stop in text and not self.has("stop-ignored")
        if stopped:
            text = text[: text.index(stop) + (len(stop) if self.has("stop-included") else 0)]
        numbers = [-0.5 for _ in words]
        if body["max_tokens"] == 16 and self.has("infinite"):
            numbers[3] = -9999.0
        choice = {
            "text": text,
            "token_ids": [int(hashlib.md5(word.encode()).hexdigest()[:6], 16) for word in words],
            "finish_reason": "stop" if stopped else "length",
            "stop_reason": stop if stopped else None,
            "logprobs": {"token_logprobs": numbers} if "logprobs" in body else None,
        }
        return {"choices": [choice], "usage": usage(len(body["prompt"]) // 4, len(words))}

    def words(self, body: dict[str, Any], *, again: bool) -> list[str]:
        shift = len(body["prompt"]) + (7 if again and self.has("changes") else 0)
        words = [WORDS[(shift + n) % len(WORDS)] + str(n % 7) for n in range(body["max_tokens"])]
        if len(words) >= 12:  # begins as no other, and ends as the prompts with a known answer expect
            words[0], words[-3:] = f"w{shift}", ["3 h", "Earth", "4k"]
        if again and self.has("garbled"):
            words[2:] = ["мир", "世界"] * ((len(words) - 2) // 2)
        return words

    # --- chats

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("tools") and not self.of_tool_call():
            return self.with_tools(body)
        question = body["messages"][0]["content"]
        if self.has("dies") and question == prompts()["chat"]["question"]:
            self.connection.close()
            raise ConnectionAbortedError
        if self.has("hangs") and question == prompts()["chat"]["question"]:
            time.sleep(5)
        message, finish, tokens = self.message(body, question)
        thinking = self.thinks(body) and not self.has("mode-lost")
        sums = usage(len(question) // 4 + (100 if thinking else 0), tokens)
        if self.has("usage"):
            sums["total_tokens"] += 1
        return {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": finish}], "usage": sums}

    def thinks(self, body: dict[str, Any]) -> bool:
        chosen = (body.get("chat_template_kwargs") or {}).get("thinking") is not False
        return chosen and not self.has("never-thinks")

    def message(self, body: dict[str, Any], question: str) -> tuple[dict[str, Any], str, int]:
        known = prompts()
        if question == known["chat"]["question"]:
            content = "" if self.has("empty-chat") else "41" if self.has("wrong-answer") else "42"
            return {"content": content}, "stop", 1
        if question == known["thinking"]["question"]:
            return self.thought(body)
        if question == known["tool"]["question"]:
            return self.tool(body)
        if question == known["schema"]["question"]:
            endless = self.has("endless-json")
            return {"content": self.ship()[: 20 if endless else None]}, "length" if endless else "stop", 20
        codes = re.findall(r"lighthouse is (\d+)", question)
        if self.has("lost-middle"):
            del codes[1]
        return {"content": ", ".join(codes)}, "stop", 12

    def thought(self, body: dict[str, Any]) -> tuple[dict[str, Any], str, int]:
        if not self.thinks(body):
            extra = {"reasoning": REASONING} if self.has("thinks-anyway") else {}
            return {"content": "There are 13 of them: 13", **extra}, "stop", 5
        short = body["max_tokens"] < 16
        if self.has("tags"):
            return {"content": REASONING + ("" if short else "</think>13")}, "length" if short else "stop", 9
        if short:
            return {"content": "Nine" if self.has("trap") else None, "reasoning": "Nine sheep"}, "length", 8
        if self.has("long-thought"):
            return {"content": None, "reasoning": REASONING}, "length", body["max_tokens"]
        content = None if self.has("no-content") else "13"
        return {"content": content, "reasoning": REASONING}, "stop", 9

    def tool(self, body: dict[str, Any]) -> tuple[dict[str, Any], str, int]:
        if len(body["messages"]) > 1:
            call, result = body["messages"][1]["tool_calls"][0], body["messages"][2]
            assert result["tool_call_id"] == call["id"]
            said = (
                "I do not know."
                if self.has("ignores-result")
                else f"It is {json.loads(result['content'])['level_m']} m."
            )
            return {"content": said}, "stop", 9
        if self.has("no-call"):
            return {"content": "<tool_calls>water_level"}, "stop", 9
        name = "weather" if self.has("other-tool") else "water_level"
        arguments = '{"station": ' if self.has("bad-arguments") else '{"station": "Alder Bridge"}'
        function = {"name": name, "arguments": arguments}
        return (
            {"content": None, "tool_calls": [{"id": "call-1", "type": "function", "function": function}]},
            "tool_calls",
            9,
        )

    def of_tool_call(self) -> bool:
        """Tell whether a request is one of the two of tool-call, the first check with a tool; a bad call has no second."""
        with self.server.guard:
            self.server.requests["tools"] += 1
        ends_early = self.server.faults & {"no-call", "other-tool", "bad-arguments"}
        return self.server.requests["tools"] <= (1 if ends_early else 2)

    def with_tools(self, body: dict[str, Any]) -> dict[str, Any]:
        faults = self.server.faults
        turn = scripted_tools.written(body, thinks=self.thinks(body), faults=faults)
        message, finish, tokens = scripted_tools.full(turn, body["max_tokens"], faults)
        prompt = scripted_tools.prompt(body["messages"], faults)
        if salt := body.get("cache_salt"):
            known = self.server.cached.get(salt, "")
            self.server.hits += (
                0
                if self.has("no-hits")
                else sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(known, prompt, strict=False)))
            )
            self.server.cached[salt] = prompt + turn.raw()
        told = {"prompt_token_ids": scripted_tools.ids(prompt)} if body.get("return_token_ids") else {}
        choice = {"message": {"role": "assistant", **message}, "finish_reason": finish}
        choice |= {"token_ids": scripted_tools.generated(turn.raw(), faults)} if told else {}
        return {"choices": [choice], "usage": usage(len(prompt), tokens), **told}

    def ship(self) -> str:
        ship: dict[str, Any] = {"name": "Marigold", "launched": 1869, "sails": True}
        if self.has("extra-field"):
            ship["masts"] = 3
        if self.has("wrong-value"):
            ship["launched"] = 1896
        return json.dumps(ship)[: 20 if self.has("not-json") else None]

    # --- streams

    def stream_tools(self, body: dict[str, Any]) -> None:
        faults, most = self.server.faults, body["max_tokens"]
        turn = scripted_tools.written(body, thinks=self.thinks(body), faults=faults)
        self.begin_stream()
        for delta, spent in scripted_tools.deltas(turn, most, faults):
            counted = {} if self.has("uncounted") else {"usage": usage(9, spent)}
            self.event({"choices": [{"delta": delta, "finish_reason": None}], **counted})
        self.event({"choices": [{"delta": {}, "finish_reason": scripted_tools.finish(turn, most, faults)}]})
        self.event({"choices": [], "usage": usage(9, min(most, turn.tokens()))})
        self.wfile.write(b"data: [DONE]\n\n")

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()

    def stream(self, body: dict[str, Any]) -> None:
        thinking = self.thinks(body)
        said = [("content", f"{word} ") for word in WORDS]
        thought = [("reasoning", f"{word} ") for word in REASONING.split()]
        pieces = [*thought, ("content", "13")] if thinking else said
        if thinking and self.has("tags"):
            pieces = [("content", f"{REASONING}</think>13")]
        if thinking and self.has("mixed"):
            pieces = [*thought[:2], ("content", "13"), *thought[2:]]
        if not thinking and self.has("one-piece"):
            pieces = [("content", "".join(text for _, text in said))]
        if not thinking and self.has("silent"):
            pieces = []
        self.begin_stream()
        for kind, text in pieces:
            self.event({"choices": [{"delta": {kind: text}, "finish_reason": None}]})
        if not thinking and self.has("error-event"):
            self.event({"error": {"message": "EngineCore died"}})
            return
        if thinking or not self.has("unfinished"):
            self.event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        if thinking or not self.has("no-usage"):
            self.event({"choices": [], "usage": usage(9, len(pieces))})
        if thinking or not self.has("no-done"):
            self.wfile.write(b"data: [DONE]\n\n")

    def event(self, data: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())

    def answer(self, body: dict[str, Any], status: int = 200) -> None:
        self.send(status, json.dumps(body))

    def send(self, status: int, text: str, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        return


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Return vLLM's usage."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
