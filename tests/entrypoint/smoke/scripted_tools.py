"""What the scripted replica answers to a request with tools: sound turns, cut at any token, but for the faults it is given."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dsv4_serve.entrypoint.smoke.data import prompts

OPEN, CLOSE = "<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>"
STEP = 4
"""Characters of a token."""
TOKENS = 7_000_000
"""Ids of characters begin here."""
OTHER = 5
"""Two newlines as one token."""
NUMBERS = "\n".join(f"number {n}" for n in range(120))


@dataclass
class Turn:
    """What the model wrote: a thought, prose, and calls by name with their arguments."""

    reasoning: str = ""
    content: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def raw(self) -> str:
        """The text as the model wrote it, near enough to count its tokens."""
        calls = "".join(f"{name}{json.dumps(given)}" for name, given in self.calls)
        return f"{self.reasoning}</think>{self.content}" + (f"\n\n{OPEN}{calls}{CLOSE}" if calls else "")

    def tokens(self) -> int:
        return -(-len(self.raw()) // STEP)


def ids(text: str) -> list[int]:
    return [TOKENS + ord(character) for character in text]


def generated(text: str, faults: Collection[str]) -> list[int]:
    """Return the ids that the model chose, which its tokenizer may not choose for the same text."""
    if "other-tokens" not in faults:
        return ids(text)
    head, _, tail = text.partition("\n\n")
    return [*ids(head), OTHER, *ids(tail)]


def text(tokens: list[int]) -> str:
    return "".join(chr(token - TOKENS) if token != OTHER else "\n\n" for token in tokens)


def prompt(messages: list[dict[str, Any]], faults: Collection[str]) -> str:
    """Return the prompt's text: a turn of the assistant as it was written, unless the template drifts."""
    text = ""
    for message in messages:
        if message["role"] != "assistant":
            text += f"<{message['role']}>{message['content']}<assistant>"
            continue
        given = [
            (call["function"]["name"], json.loads(call["function"]["arguments"])) for call in message["tool_calls"]
        ]
        turn = Turn(message.get("reasoning") or "", message["content"] or "", given)
        text += turn.raw().replace(OPEN, f"\n\n{OPEN}" if "drift" in faults else OPEN)
    return text


def written(body: Mapping[str, Any], *, thinks: bool, faults: Collection[str]) -> Turn:
    """Return the model's turn for a request."""
    known = prompts()["tools"]
    function = body["tools"][0]["function"]["name"]
    question = next(one["content"] for one in reversed(body["messages"]) if one["role"] == "user")
    turn = Turn("The tool knows." if thinks and "no-thought" not in faults else "")
    if body["messages"][-1]["role"] == "tool":
        turn.content = "It is 3.74 m."
    elif "refuses-calls" in faults:
        turn.content = "I would rather not."
    elif function == "write_file":
        turn.calls = [(function, {"path": "n.txt", "content": "one" if "short" in faults else NUMBERS})]
    elif function == "save_note":
        turn.calls = [(function, {"text": "no tags" if "rewords" in faults else known["tags"]["text"]})]
    elif function == "open_gate":
        turn.calls = [(function, {"gate": "7" if "ref-text" in faults else 7})]
    elif question == known["parallel"]["question"]:
        stations = ["Alder Bridge"] if "one-call" in faults else ["Alder Bridge", "Mill Weir"]
        turn.calls = [(function, {"station": station}) for station in stations]
    else:
        turn.calls = [(function, {"station": "Alder Bridge"})]
    return turn


def calls(turn: Turn, faults: Collection[str]) -> list[dict[str, Any]]:
    """Return the calls as vLLM's parser gives them."""
    same = "same-ids" in faults
    return [
        {
            "id": f"call-{0 if same else n}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(given)},
        }
        for n, (name, given) in enumerate(turn.calls)
    ]


def full(turn: Turn, most: int, faults: Collection[str]) -> tuple[dict[str, Any], str, int]:
    """Return message, finish_reason and tokens of an answer without streaming."""
    if most < turn.tokens():
        kept = [{**call, "function": {**call["function"], "arguments": "{}"}} for call in calls(turn, faults)]
        if "cut-succeeds" in faults:
            return {"content": None, "tool_calls": kept}, "tool_calls", most
        leak = {"content": "<｜DSML｜tool_ca"} if "cut-leaks" in faults else {"content": None}
        return {**leak, "reasoning": turn.reasoning}, "length", most
    message: dict[str, Any] = {
        "content": turn.content or None,
        "reasoning": turn.reasoning,
        "tool_calls": calls(turn, faults),
    }
    if "tags-deleted" in faults:
        for call in message["tool_calls"]:
            given = call["function"]["arguments"]
            call["function"]["arguments"] = given.replace("<think>", "").replace("</think>", "")
    if "tags-destroy" in faults and "<think>" in str(message["tool_calls"]):
        message["tool_calls"][0]["function"]["arguments"] = "{}"
    if "leaks" in faults and turn.calls:
        message["content"] = f"{OPEN}\n"
    if "leaks-thought" in faults and turn.calls and turn.reasoning:
        message["reasoning"] += OPEN
    return message, "tool_calls" if turn.calls else "stop", turn.tokens()


def deltas(turn: Turn, most: int, faults: Collection[str]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the deltas of a stream, each with the tokens so far."""
    spent = 0
    if turn.reasoning:
        spent += -(-len(turn.reasoning) // STEP)
        yield {"reasoning": turn.reasoning}, spent
    if turn.content:
        yield {"content": turn.content}, spent
    for index, call in enumerate(calls(turn, faults)):
        function, at = call["function"], 0 if "one-index" in faults else index
        spent += 8
        if spent >= most:
            return
        yield {"tool_calls": [{"index": at, "id": call["id"], "function": {"name": function["name"]}}]}, spent
        step = len(function["arguments"]) if "one-delta" in faults else STEP
        text = function["arguments"][: -2 if "broken-stream" in faults else None]
        if "other-stream" in faults:
            text = text.replace("Alder", "Elder")
        for start in range(0, len(text), step):
            spent += -(-len(text[start : start + step]) // STEP)
            if spent >= most:
                return
            yield {"tool_calls": [{"index": at, "function": {"arguments": text[start : start + step]}}]}, spent


def finish(turn: Turn, most: int, faults: Collection[str]) -> str:
    """Return the finish_reason of a stream."""
    if most < turn.tokens():
        return "tool_calls" if "cut-stream-succeeds" in faults else "length"
    return "tool_calls" if turn.calls else "stop"
