"""
Play a scenario with the answers so far: the messages of the next request, or the score. Pure.

Protocol and task are scored apart: a faultless call of the wrong tool is a fault of the task alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..client.answers import Reply
from ..smoke import calls
from .tool_scenarios import ExpectedCall, Scenario

MOST_TURNS = 8
_MISSING = object()


@dataclass(frozen=True)
class Play:
    """Where a scenario stands. `protocol` and `task` say what is wrong, empty where nothing is."""

    messages: Sequence[Mapping[str, Any]]
    done: bool
    protocol: str = ""
    task: str = ""


@dataclass
class _State:
    messages: list[dict[str, Any]]
    remaining: list[list[ExpectedCall]]
    protocol: str = ""
    faults: list[str] = field(default_factory=list)


def play(scenario: Scenario, replies: Sequence[Reply], faults: Sequence[str] = ()) -> Play:
    """Return where a scenario stands after these answers; `faults` are those that each stream showed by itself."""
    state = _State([{"role": "user", "content": scenario.ask}], [list(step) for step in scenario.steps])
    for turn, reply in enumerate(replies):
        seen = faults[turn] if turn < len(faults) else ""
        if protocol := seen or calls.fault(reply, scenario.tools):
            return Play(state.messages, done=True, protocol=protocol, task=f"turn {turn + 1} is not usable")
        if reply.finish == "length":
            return Play(state.messages, done=True, task=f"turn {turn + 1} was cut")
        if not reply.tool_calls:
            return Play(state.messages, done=True, task=_unfinished(state) or _unanswered(scenario, reply))
        if wrong := _take(scenario, state, reply):
            return Play(state.messages, done=True, task=wrong)
    if len(replies) >= MOST_TURNS:
        return Play(state.messages, done=True, task=f"not finished after {MOST_TURNS} turns")
    return Play(state.messages, done=False)


def _take(scenario: Scenario, state: _State, reply: Reply) -> str:
    """Match calls with the expected ones, and append them and their results to the messages; return what is wrong."""
    if not state.remaining:
        return f"a call that nothing asks for: {_shown(reply.tool_calls[0])}"
    step = state.remaining[0]
    results = []
    for call in reply.tool_calls:
        found = next((one for one in step if matches_call(one, call)), None)
        if found is None:
            expected = ", ".join(f"{one.name}({one.arguments})" for one in step) or "an answer"
            return f"the call {_shown(call)}, expected {expected}"
        step.remove(found)
        results.append({"role": "tool", "tool_call_id": call["id"], "content": found.result})
    if step and scenario.together:
        return f"{len(step)} of the calls are missing in the turn that has the others"
    if not step:
        state.remaining.pop(0)
    assistant = {"role": "assistant", "content": reply.content, "tool_calls": list(reply.tool_calls)}
    state.messages += [assistant | ({"reasoning": reply.reasoning} if reply.reasoning else {}), *results]
    return ""


def matches_call(expected: ExpectedCall, call: Mapping[str, Any]) -> bool:
    """Tell whether a call is the expected one; arguments that the scenario does not name are free."""
    return call["function"]["name"] == expected.name and matches(expected.arguments, calls.arguments(call) or {})


def matches(expected: Any, value: Any) -> bool:
    """Tell whether a value is as expected, by the rules of tool_scenarios.toml."""
    if isinstance(expected, Mapping):
        if len(expected) == 1 and (rule := next(iter(expected))).startswith("$"):
            return _by_rule(rule, expected[rule], value)
        return isinstance(value, Mapping) and all(
            matches(one, value.get(key, _MISSING)) for key, one in expected.items()
        )
    if isinstance(expected, (list, tuple)):
        same_length = isinstance(value, list) and len(value) == len(expected)
        return same_length and all(matches(one, other) for one, other in zip(expected, value, strict=True))
    if isinstance(expected, str):
        return isinstance(value, str) and _plain(value) == _plain(expected)
    if isinstance(expected, bool) or isinstance(value, bool):
        return expected is value
    return isinstance(value, (int, float)) and value == expected


def _by_rule(rule: str, expected: Any, value: Any) -> bool:
    """Tell whether a value follows one rule; raise KeyError for an unknown one."""
    if rule == "$null":
        return value is None
    rules: dict[str, Callable[[str], bool]] = {
        "$text": lambda text: bool(text == expected),
        "$contains": lambda text: all(part.casefold() in text.casefold() for part in expected),
        "$any-contains": lambda text: any(part.casefold() in text.casefold() for part in expected),
        "$any-of": lambda text: any(_plain(one) == _plain(text) for one in expected),
        "$least": lambda text: bool(len(text) >= expected),
    }
    return isinstance(value, str) and rules[rule](value)


def example(expected: Any) -> Any:
    """Return a value that matches."""
    if isinstance(expected, Mapping):
        if len(expected) == 1 and (rule := next(iter(expected))).startswith("$"):
            return _example_of(rule, expected[rule])
        return {key: example(one) for key, one in expected.items()}
    return [example(one) for one in expected] if isinstance(expected, (list, tuple)) else expected


def _example_of(rule: str, expected: Any) -> Any:
    match rule:
        case "$null":
            return None
        case "$text":
            return expected
        case "$contains":
            return "".join(expected)
        case "$least":
            return "x" * expected
    return expected[0]


def _unfinished(state: _State) -> str:
    missing = [call.name for step in state.remaining for call in step]
    return f"it ended without calling {', '.join(missing)}" if missing else ""


def _unanswered(scenario: Scenario, reply: Reply) -> str:
    content = _plain(reply.content)
    for part in scenario.answer:
        choice = (part,) if isinstance(part, str) else part
        if not any(_plain(one) in content for one in choice):
            return f"the answer lacks {' or '.join(choice)}: {reply.content[:120]!r}"
    return "" if content else "the answer is empty"


def _plain(text: str) -> str:
    return text.casefold().strip()


def _shown(call: Mapping[str, Any]) -> str:
    function = call["function"]
    return f"{function['name']}({function['arguments'][:200]})"
