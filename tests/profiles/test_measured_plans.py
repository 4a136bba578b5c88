"""
A figure of ours in a profile file is of the plan that `serve` makes today.

Each result that a `[[measured]]` entry names is resolved again from the same choices and flags. A plan that differs has to
be measured again, or an entry in qualification/results/plans.toml says why the figure still holds. The same goes for the
patches, in superseded.toml.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint import draft_schedule
from dsv4_serve.entrypoint.fingerprint import fingerprint
from dsv4_serve.entrypoint.plan import Plan, plain
from dsv4_serve.entrypoint.replica_description import flag_values
from dsv4_serve.entrypoint.shared_result import digest, series_digest, variable
from dsv4_serve.entrypoint.vllm_schema import argv
from tests.support.plans import request, resolved
from tools import qualification

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "qualification/results"
HELD = tomllib.loads((RESULTS / "plans.toml").read_text(encoding="utf-8"))
TOKENS = "speculative-config.num_speculative_tokens"
OF_THE_HOST = ("model", "served-model-name", "tokenizer", "host", "port", "api-key", "download-dir", "shutdown-timeout")
OF_THE_MEASUREMENT = (
    "load-format",
    "profiler-config",
    "speculative-config.rejection_sample_method",
    "speculative-config.synthetic_acceptance_rates",
)
"""Flags of a replica without weights and of a profiler, which no profile sets; an entry tells of dummy weights."""

Result = Mapping[str, Any]


def quoted() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the profile's name and the entry of each figure that names a result file."""
    for path in sorted((ROOT / "profiles").rglob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("measured", []):
            if entry["source"].startswith("qualification/"):
                yield path.stem, entry


QUOTED = [pytest.param(profile, entry, id=Path(entry["source"]).stem) for profile, entry in quoted()]


def result_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads((ROOT / entry["source"]).read_text(encoding="utf-8"))


def name_of(entry: Mapping[str, Any]) -> str:
    return str((ROOT / entry["source"]).relative_to(RESULTS))


def flags_then(result: Result) -> dict[str, Any]:
    """Return the flags that the replica had; results from before 2026-12 hold only the command."""
    if values := flag_values(result["replica"]):
        return values
    command = result["replica"]["argv"]
    first = next(number for number, word in enumerate(command) if word.startswith("--"))
    return plain(argv.read(command[first:]))


def plan_today(result: Result, held: Mapping[str, Any], **changes: Any) -> Plan:
    """Resolve the request that the replica was started with; `changes` are flags that replace its own."""
    choices = result["replica"]["choices"]
    named = {name.removesuffix("-name"): choices[name] for name in ("profile", "model-name", "hardware", "nccl")}
    skip = tuple(name.removeprefix("skip ") for name in choices if name.startswith("skip "))
    variant = result.get("variant", {})
    started = variant.get("flags", held.get("flags"))
    assert started is not None, "add `flags` to the entry of this result in qualification/results/plans.toml"
    shape = {"tensor-parallel-size": variant["tp"]} if "tp" in variant else {}  # results from before 2026-11-30 lack it
    return resolved(request(**named, skip=skip, **{**plain(argv.read(started)), **shape, **changes}))


def shaping(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that shape a speed and come from the profile files or the request."""
    left_out = (*OF_THE_HOST, *OF_THE_MEASUREMENT)
    return {
        name: value
        for name, value in flags.items()
        if value is not None and name not in left_out and name.partition(".")[0] not in left_out
    }


def problem(result: Result, plan: Plan, held: Mapping[str, Any]) -> str:
    """Return what to do about a figure whose plan has changed, or "" if it is as measured or its entry says why it holds."""
    env = {name: variable(name, value) for name, value in plan.environment().items()}
    had = {name: variable(name, value) for name, value in result["replica"]["env"].items()}  # and those of its host
    then = {**shaping(flags_then(result)), **{name: had.get(name) for name in env}}
    now = {**shaping(plain(plan.flags)), **env}
    changed = {name: (then.get(name), now.get(name)) for name in {*then, *now} if then.get(name) != now.get(name)}
    if not changed:
        return "the plan is as measured: remove its `plan` and `since`" if "since" in held else ""
    if held.get("since") and held.get("plan") == fingerprint(now):
        return ""
    return f"measure it again, or say in plans.toml why it holds, with plan = {fingerprint(now)!r}; changed: {changed}"


@pytest.mark.parametrize(("profile", "entry"), QUOTED)
def test_a_figure_is_of_the_plan_that_its_profile_makes_today(profile: str, entry: dict[str, Any]) -> None:
    result, held = result_of(entry), HELD.get(name_of(entry), {})
    assert result["replica"]["choices"]["profile"] == profile
    assert len(result["replica"]["machine"]["gpus"]) == entry["gpus"] == plan_today(result, held).tensor_parallel_size
    assert problem(result, plan_today(result, held), held) == ""


@pytest.mark.parametrize(("profile", "entry"), QUOTED)
def test_a_figure_is_of_the_shipped_series_or_the_change_is_told(profile: str, entry: dict[str, Any]) -> None:
    shipped, told = qualification.shipped(), qualification.superseded().keys()
    measured = {patch["name"]: patch["sha256"] for patch in result_of(entry)["replica"]["patches"]["patches"]}
    assert measured.keys() <= shipped.keys(), profile
    assert shipped.keys() - measured.keys() <= told, profile
    assert {sha for name, sha in measured.items() if sha != shipped[name]} <= told, profile


def by_load() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the hardware and each of its entries of draft tokens by load."""
    for path in sorted((ROOT / "profiles/hardware").glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("k-by-load", []):
            yield path.stem, entry


BY_LOAD = [pytest.param(hardware, entry, id=Path(entry["source"]).stem) for hardware, entry in by_load()]


@pytest.mark.parametrize(("hardware", "entry"), BY_LOAD)
def test_draft_tokens_by_load_are_the_rows_of_their_result_and_of_the_plan_of_today(
    hardware: str, entry: dict[str, Any]
) -> None:
    result, held = result_of(entry), HELD.get(name_of(entry), {})
    chosen = result["replica"]["choices"]
    assert (chosen["hardware"], chosen["model-name"]) == (hardware, entry["model"])
    assert [[row["batch"], row["tpot_p50"]] for row in result["rows"]] == entry["tpot-ms"]
    flags = flags_then(result)
    assert flags[TOKENS] == entry["tokens"]
    assert entry["drafter"] == (flags["speculative-config.method"] if entry["tokens"] else "none")
    assert "dummy weights" in result["weights"]
    assert "dummy weights" in entry["conditions"]
    assert ("share of two" in entry["conditions"]) == (result["variant"]["share"] == 2)
    served = 2 // result["variant"]["share"]  # a share of two is served on one GPU
    undrafted = {} if entry["tokens"] else {TOKENS: 0}  # by a variable, which is no flag of the variant
    assert problem(result, plan_today(result, held, **{"tensor-parallel-size": served, **undrafted}), held) == ""


def tokens_then(hardware: str, model: str, requests: int, most: int) -> int:
    """Return the draft tokens of a step with so many requests, in the plan of `shared`."""
    values = plain(resolved(request(profile="shared", hardware=hardware, model=model, **{TOKENS: most})).flags)
    by_load = {load.last: load.draft_tokens for load in draft_schedule.of_plan(values)}
    return next((tokens for last, tokens in by_load.items() if requests <= last), most)


@pytest.mark.parametrize("hardware", sorted({hardware for hardware, _ in by_load()}))
def test_where_draft_tokens_by_load_were_measured_the_fastest_are_drafted(hardware: str) -> None:
    """Of those that were measured, none included, up to the number that is requested, which is a DSpark block at most."""
    measured = [entry for name, entry in by_load() if name == hardware]
    entries = [entry for entry in measured if "skip dspark-block" not in result_of(entry)["replica"]["choices"]]
    loads: dict[tuple[str, int], dict[int, float]] = {
        (entry["drafter"], entry["tokens"]): dict(entry["tpot-ms"]) for entry in entries
    }
    for entry in entries:
        drafter, most = entry["drafter"], entry["tokens"]
        for load in dict(entry["tpot-ms"]):
            times = {
                tokens: times[load]
                for (kind, tokens), times in loads.items()
                if kind in (drafter, "none") and tokens <= most
            }
            assert tokens_then(hardware, entry["model"], load, most) == min(times, key=times.__getitem__), (most, load)


def test_every_entry_of_the_table_is_of_a_figure_in_a_profile() -> None:
    assert HELD.keys() <= {name_of(entry) for _, entry in [*quoted(), *by_load()]}


@pytest.fixture
def measured() -> dict[str, Any]:
    """A result that a profile quotes and whose plan is as measured."""
    return next(
        result
        for _, entry in quoted()
        for result in [result_of(entry)]
        if not problem(result, plan_today(result, {}), {})
    )


@pytest.mark.parametrize(
    "changes", [{"max-num-batched-tokens": 4096}, {"speculative-config.num_speculative_tokens": 2}]
)
def test_a_changed_plan_is_found_until_its_entry_names_it(measured: dict[str, Any], changes: dict[str, Any]) -> None:
    plan = plan_today(measured, {}, **changes)
    told = problem(measured, plan, {})
    assert told.startswith("measure it again, or say in plans.toml why it holds")
    assert str(changes).strip("{}").partition(":")[0] in told
    fresh = told.partition("plan = '")[2][:16]
    assert problem(measured, plan, {"plan": fresh, "since": "it changes no kernel"}) == ""
    assert problem(measured, plan, {"plan": fresh}) == told
    assert problem(measured, plan, {"plan": "0" * 16, "since": "an older change"}) == told


def test_a_changed_variable_is_found(measured: dict[str, Any]) -> None:
    measured["replica"]["env"]["FLASHINFER_CUDA_ARCH_LIST"] = "9.0"
    assert "FLASHINFER_CUDA_ARCH_LIST" in problem(measured, plan_today(measured, {}), {})


def test_a_reason_that_is_not_needed_is_found(measured: dict[str, Any]) -> None:
    assert "remove" in problem(measured, plan_today(measured, {}), {"plan": "0" * 16, "since": "nothing"})


def test_a_result_of_today_binds_plan_and_series(measured: dict[str, Any]) -> None:
    """The digests of a new result tell another flag, variable or patch, but no other port."""
    replica = {
        "settings": {"max-num-seqs": {"value": 4}, "port": {"value": 8000}}, "env": {"A": "1"},
        "patches": measured["replica"]["patches"],
    }  # fmt: skip
    moved = {**replica, "settings": {"max-num-seqs": {"value": 4}, "port": {"value": 9000}}}
    assert digest(moved) == digest(replica)
    assert digest({**replica, "env": {"A": "2"}}) != digest(replica)
    first, *rest = measured["replica"]["patches"]["patches"]
    other = {**replica, "patches": {"patches": [{**first, "sha256": "0" * 64}, *rest]}}
    assert series_digest(other) != series_digest(replica)
    assert series_digest({**replica, "patches": {"patches": [*rest, first]}}) == series_digest(replica)
