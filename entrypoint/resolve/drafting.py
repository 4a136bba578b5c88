"""Speculative decoding of a plan, from the drafter that the checkpoint has. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .. import draft_schedule
from ..checkpoint.identity import Drafter
from ..draft_floors import DSPARK, METHOD, MTP, OF_MTP
from ..draft_schedule import SCHEDULE
from ..plan import DRAFT_TOKENS, Setting, draft_tokens, plain
from ..problem import Problem
from ..request import Layer, Request
from . import measured_drafts
from .select import Selection

METHOD_RULE, BLOCK_RULE, DEPTH_RULE, SCHEDULE_RULE = "drafter-method", "dspark-block", "mtp-depth", "k-by-load"
FIELDS_RULE = "draft-dspark-fields"
"""Names of the constraints, for `--skip`."""
RULES = frozenset({METHOD_RULE, BLOCK_RULE, DEPTH_RULE, SCHEDULE_RULE, FIELDS_RULE})
LOST = (
    "no drafter in the checkpoint, so every token takes a step of its own; with one, publishers measured 1.5 to 2.1"
    " times the tokens of one stream (forks of vLLM, 2026-05)"
)
_GROUP = "speculative-config."
_SAMPLING, _DRAFT_MODEL = "speculative-config.draft_sample_method", "speculative-config.model"
_BLOCK = 5
"""Tokens that every DSpark drafter published until 2026-11 was made for."""
MOST_OF_MTP = 3
"""The most draft tokens of an MTP head that anybody published a run of, until 2026-11."""
_WITH_A_MODEL = frozenset({"eagle", "eagle3", "dflash", "medusa", "mlp_speculator", "draft_model", "custom_class"})
"""Methods that vLLM 0.32.0 refuses without `model` (config/speculative.py)."""
_NONE = "NUM_SPECULATIVE_TOKENS=0"
_NGRAM = (
    "--speculative-config.method ngram --speculative-config.num_speculative_tokens 3"
    " --speculative-config.prompt_lookup_max 3"
)


def layer(selection: Selection) -> Layer:
    """
    Return the settings that the drafter needs: its method, its draft tokens, and how DSpark's are sampled.

    Greedy is vLLM's default for drafts. Above temperature 0 a greedy draft is accepted less often: with five tokens 1.8
    instead of 2.4 tokens a step (third-party report, V100, a fork of vLLM, 2026-08-03).
    """
    drafter = selection.drafter
    origin = f"drafter of {selection.model.name}: {described(drafter)}"
    if drafter.kind == MTP:
        return Layer({METHOD: Setting(MTP, origin), DRAFT_TOKENS: Setting(1, origin)})
    if drafter.kind == DSPARK:
        tokens = drafter.block_size or _BLOCK
        return Layer(
            {
                METHOD: Setting(DSPARK, origin),
                DRAFT_TOKENS: Setting(tokens, origin),
                _SAMPLING: Setting("probabilistic", origin),
            }
        )
    return Layer()


def described(drafter: Drafter) -> str:
    """Return a drafter in words."""
    if drafter.kind == DSPARK:
        return f"DSpark, {drafter.layers} layers, blocks of {drafter.block_size or _BLOCK} tokens"
    return "an MTP head" if drafter.kind == MTP else "no drafter"


def settle(selection: Selection, request: Request, flags: dict[str, Setting]) -> dict[str, Setting]:
    """
    Remove what drafts nothing for a checkpoint without drafter, and what is the drafter's where another one drafts.

    Return what `explain` shows beside the flags.
    """
    drafter, own = selection.drafter, layer(selection).flags
    method = flags.get(METHOD)
    if drafter.kind == "none" and method is None and _DRAFT_MODEL not in flags:
        requested = request.flag(DRAFT_TOKENS)
        for name in [name for name in flags if name.startswith(_GROUP)]:
            del flags[name]
        if requested and requested.value:
            flags[DRAFT_TOKENS] = requested  # a violation says that nothing drafts them
        return {"drafter": Setting("none", LOST)}
    if _DRAFT_MODEL in flags and flags.get(METHOD) == own.get(METHOD):
        flags.pop(METHOD, None)  # vLLM takes the method from that model
        method = None
    if (method is None or _kind(method.value) != drafter.kind) and flags.get(_SAMPLING) == own.get(_SAMPLING):
        flags.pop(_SAMPLING, None)
    if method and method.value == "suffix" and flags.get(DRAFT_TOKENS) == own.get(DRAFT_TOKENS):
        flags.pop(DRAFT_TOKENS, None)  # it has a maximum of its own
    shown = _by_load(selection, flags)
    if SCHEDULE in flags and _parallel(plain(flags)) and flags[SCHEDULE].of_profile:
        origin = f"{flags.pop(SCHEDULE).origin}: no schedule by load, which vLLM ignores with data parallelism"
        return {"draft tokens": Setting(draft_tokens(plain(flags)), origin)}
    return shown


def _parallel(values: Mapping[str, object]) -> bool:
    """Tell whether data parallel ranks draft: vLLM 0.32.0 gives them all as many tokens (config/vllm.py)."""
    replicas = values.get("data-parallel-size")
    return isinstance(replicas, int) and replicas > 1


def _by_load(selection: Selection, flags: dict[str, Setting]) -> dict[str, Setting]:
    """
    Return the draft tokens by load, for `explain`.

    A profile's schedule that drafts all tokens at every load is removed: vLLM does the same without one.
    """
    values = plain(flags)
    found = draft_schedule.of_plan(values)
    if not found:
        return {}
    schedule, most = flags[SCHEDULE], draft_tokens(values)
    drafts = draft_schedule.most(schedule.value)
    origin = schedule.origin
    if drafts > most:
        origin = f"{origin}; the schedule's {drafts} is more than num_speculative_tokens"
    if schedule.of_profile:
        origin += measured_drafts.clause(selection.hardware, _kind(values.get(METHOD)), found)
        if {load.draft_tokens for load in found} == {most}:
            del flags[SCHEDULE]
    return {"draft tokens": Setting(draft_schedule.text(found), origin)}


def violations(selection: Selection, flags: Mapping[str, Setting]) -> Iterator[tuple[str, str, Problem]]:
    """Yield what cannot draft: a method that the drafter is not made for, too many tokens, a wrong schedule."""
    values = plain(flags)
    tokens, drafter, where = draft_tokens(values), selection.drafter, f"model {selection.model.name}"
    if not tokens:
        return
    method = values.get(METHOD)
    if _DRAFT_MODEL not in flags and _kind(method) in ("", MTP, DSPARK) and _kind(method) != drafter.kind:
        requested = f"speculative-config.method is {method}" if method else _requested(tokens)
        has = "the checkpoint has no drafter" if drafter.kind == "none" else f"its drafter is {described(drafter)}"
        yield METHOD_RULE, where, Problem(f"{requested}, but {has}", "", _way_out(drafter))
    if method in _WITH_A_MODEL and _DRAFT_MODEL not in flags:
        seen = f"speculative-config.method {method} needs a draft model of its own"
        yield METHOD_RULE, where, Problem(seen, "speculative-config.model", "name it, or leave the method out")
    if method == DSPARK and drafter.wrong:
        seen = f"config.json describes no DSpark drafter that vLLM could build: {', '.join(drafter.wrong)}"
        yield FIELDS_RULE, where, Problem(seen, "", f"fetch the original config.json, or set {_NONE}")
    elif method == DSPARK and 0 < drafter.block_size < tokens:
        seen = (
            f"{tokens} draft tokens, but its DSpark drafter was made for blocks of {drafter.block_size}: 4 % were"
            " accepted at 7 and 35 % at 5 (2 x GB10, a fork of vLLM, 2026-08-01, vllm#41834)"
        )
        yield BLOCK_RULE, where, Problem(seen, "", f"set NUM_SPECULATIVE_TOKENS={drafter.block_size} or fewer")
    if _kind(method) == drafter.kind == MTP and tokens > _most(drafter):
        seen = (
            f"{tokens} draft tokens, but its MTP head drafts one: vLLM 0.32.0 runs it {tokens} times in a row, each on"
            f" a guess of its own, and the most that anybody published is {MOST_OF_MTP} (recipes#493, 2026-05-28)"
        )
        yield DEPTH_RULE, where, Problem(seen, "", f"set NUM_SPECULATIVE_TOKENS={MOST_OF_MTP} or fewer")
    yield from _schedule(selection, values, flags)


def _most(drafter: Drafter) -> int:
    """Return the most draft tokens that a drafter is allowed here."""
    return drafter.block_size if drafter.kind == DSPARK else max(drafter.layers, MOST_OF_MTP)


def _requested(tokens: int) -> str:
    return f"{tokens} draft token{'s are' if tokens > 1 else ' is'} requested"


def _schedule(
    selection: Selection, values: Mapping[str, Any], flags: Mapping[str, Setting]
) -> Iterator[tuple[str, str, Problem]]:
    if SCHEDULE not in flags or values[SCHEDULE] is None:
        return
    where, name = flags[SCHEDULE].origin, "num_speculative_tokens_per_batch_size"
    if wrong := draft_schedule.problem(values[SCHEDULE]):
        yield SCHEDULE_RULE, where, Problem(f"{name}: {wrong}", "", "correct it, such as [[1, 4, 3], [5, 16, 1]]")
        return
    drafts, most = draft_schedule.most(values[SCHEDULE]), draft_tokens(values)
    if drafts > most and not flags[SCHEDULE].of_profile:  # a profile's may be made for a drafter of more tokens
        seen = f"{name} requests {drafts} draft tokens, but num_speculative_tokens is {most}, and vLLM drafts no more"
        more = f"set NUM_SPECULATIVE_TOKENS={drafts}, or " if drafts <= _most(selection.drafter) else ""
        yield SCHEDULE_RULE, where, Problem(seen, "", f"{more}request {most} or fewer")
    if not draft_schedule.alone(values):
        seen = f"{name} gives a single request no draft tokens, so the drafter could not be proved at the start"
        yield SCHEDULE_RULE, where, Problem(seen, "", f"give it 1 or more, or set {_NONE}")
    if _parallel(values):
        seen = f"vLLM 0.32.0 ignores {name} with data parallelism, as ranks could choose different numbers"
        yield SCHEDULE_RULE, where, Problem(seen, "", "leave it out, or serve one replica for each rank")


def _kind(method: object) -> str:
    return MTP if str(method).endswith(OF_MTP) else str(method or "")


def _way_out(drafter: Drafter) -> str:
    if drafter.kind == "none":
        return f"leave speculative-config out, set {_NONE}, or draft by n-grams: {_NGRAM}"
    return f"leave speculative-config.method out, set it to {drafter.kind}, or set {_NONE}"
