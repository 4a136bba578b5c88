"""Starts that are kept, whether a setup drafts as the plan does, and the profile that is written."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError, HostError, UsageError
from dsv4_serve.entrypoint.tune import kept, profile_file, rightness, setups
from dsv4_serve.entrypoint.tune.decide import PLAN, TuneTrial
from dsv4_serve.entrypoint.tune.measure import Visit


def row(**changed: Any) -> dict[str, Any]:
    times = {"tpot_p50": 9.0, "tpot_p99": 9.5, "ttft_p50": 20.0, "ttft_p99": 25.0}
    figures = {"batch": 1, "input": 8, "output": 8, "output_tokens_per_second": 100.0, **times}
    return {**figures, "acceptance": 0.9, "drafted": 100, "by_position": [0.95, 0.85], **changed}


def test_what_is_kept_is_read_back_and_a_line_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "tune/a.jsonl"
    starts = kept.opened(path)
    starts.add(Visit(TuneTrial(PLAN, {1: 100.0}, seconds=5.0), (row(),), {"choices": {"profile": "x"}}))
    starts.add(Visit(TuneTrial(("a",), failed="it crashed", seconds=2.5)))
    starts.add(Visit(TuneTrial(PLAN, {1: 101.0}, seconds=5.0), (row(),), {"choices": {"profile": "x"}}))
    with path.open("a") as file:
        file.write('{"setup": ["b"], "spee')
    again = kept.opened(path)
    assert again.trials == starts.trials
    assert again.spent == 12.5
    assert len(again.rows(PLAN)) == 2
    assert again.replica(PLAN) == {"choices": {"profile": "x"}}
    again.add(Visit(TuneTrial(("b",), {1: 1.0})))
    assert [trial.setup for trial in kept.opened(path).trials] == [PLAN, ("a",), PLAN, ("b",)]


def test_a_line_cut_within_a_character_is_dropped_and_odd_line_ends_within_one_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    starts = kept.opened(path)
    starts.add(Visit(TuneTrial(("a",), failed="one\u2028two\x85three", seconds=2.5)))
    whole = path.read_bytes()
    path.write_bytes(whole + '{"setup": ["é'.encode()[:-1])
    assert kept.opened(path).trials == starts.trials
    assert path.read_bytes() == whole


_DAMAGED = [
    "[" * 100_000,
    '{"setup": [], "speeds": {"1": NaN}}',
    '{"setup": [], "speeds": {"1": 0}}',
    '{"setup": [], "speeds": {"1": -5}}',
    '{"setup": []}',
    '{"setup": [], "speeds": {"1": 5}, "seconds": -1e9}',
]


@pytest.mark.parametrize("line", _DAMAGED, ids=lambda line: line[:40])
def test_a_damaged_start_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(ConfigError, match="is not what `dsv4 tune` keeps"):
        kept.opened(tmp_path / "a.jsonl")


@pytest.mark.parametrize("text", ["no json\n", "[]\n", '{"setup": 1}\n', '{"setup": [], "more": 1}\n'])
def test_another_file_is_not_taken_for_a_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ConfigError, match="is not what `dsv4 tune` keeps"):
        kept.opened(tmp_path / "a.jsonl")


def test_a_drafter_that_is_half_broken_is_noticed_above_the_gates_floor() -> None:
    plan = [row(), row(batch=16)]
    assert rightness.drafts_less(plan, [row(by_position=[0.9, 0.5])]) == ""
    fell = rightness.drafts_less(plan, [row(), row(batch=16, by_position=[0.5, 0.4])])
    assert fell == "50% of the drafts have their first token accepted at batch 16, 95% with the plan"
    assert rightness.drafts_less(plan, [row(drafted=0, acceptance=None, by_position=[])]) == ""
    single = [row(by_position=[], acceptance=0.7)]
    assert "70%" in rightness.drafts_less(plan, single)
    assert rightness.drafts_less([], single) == ""


CHANGES = {
    "speculative-config.num_speculative_tokens_per_batch_size": [[1, 4, 5], [5, 64, 0]],
    "moe-backend": "marlin",
    "enable-expert-parallel": True,
    "nccl": "p2p-on",
}


def result(**changed: Any) -> dict[str, Any]:
    machine = {"gpus": [{"name": "NVIDIA H200"}] * 2, "cores": 32}
    return {
        "date": "2026-11-29T06:00:00+00:00",
        "replica": {"choices": {"model-name": "w4a16"}, "versions": {"vllm": "0.32.0"}, "machine": machine},
        "weights": "as served",
        "candidates": [{"name": "a", "because": "five instead of one"}, {"name": "b", "because": "luck"}],
        "best": ["a"],
        "changes": CHANGES,
        "threshold": 0.021,
        "noise": {"freedom": 4},
        "before": [row()],
        "after": [row(output_tokens_per_second=120.0)],
        **changed,
    }


def test_the_profile_says_what_why_and_how_much() -> None:
    text = profile_file.text("64k", result(), "qualification/tune/x.json")
    read = tomllib.loads(text)
    assert (read["extends"], read["nccl"], read["flags"]["moe-backend"]) == ("64k", "p2p-on", "marlin")
    assert read["flags"]["speculative-config"] == {"num_speculative_tokens_per_batch_size": [[1, 4, 5], [5, 64, 0]]}
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert "# a: five instead of one." in comments
    assert "# batch 1, 8 tokens in, 8 out: 100.00 tok/s before, 120.00 with it (+20.0%)." in comments
    assert "# Every start passed the draft gate and the corruption canary of `dsv4 serve`." in comments
    assert not [line for line in comments if "luck" in line]
    [measured] = read["measured"]
    assert (measured["hardware"], measured["vllm"], measured["date"]) == ("2 x NVIDIA H200", "0.32.0", "2026-11-29")
    dummy = profile_file.text("64k", result(weights="dummy weights, experts uniform_random"), "x.json")
    assert "whether its answers are right and its drafts good is unproven" in dummy
    assert "(dummy weights)" in tomllib.loads(dummy)["measured"][0]["what"]


def test_the_profile_is_one_that_the_catalog_reads_and_is_never_overwritten(tmp_path: Path) -> None:
    path = profile_file.check_place("mine", [tmp_path], Catalog([tmp_path]))
    profile_file.write(path, profile_file.text("64k", result(), "x.json"))
    read = Catalog([tmp_path]).profile("mine", "")
    assert read.flags()["moe-backend"] == "marlin"
    assert read.get("nccl") == "p2p-on"
    with pytest.raises(ConfigError, match="there is a profile mine already"):
        profile_file.check_place("mine", [tmp_path], Catalog([tmp_path]))
    with pytest.raises(HostError, match="File exists"):
        profile_file.write(path, "")
    with pytest.raises(UsageError, match="--name"):
        profile_file.check_place("a/b", [tmp_path], Catalog([]))
    with pytest.raises(ConfigError, match="DSV4_PROFILES names no folder"):
        profile_file.check_place("other", [], Catalog([]))


VALUES = (
    st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.text(max_size=20)
    | st.lists(st.lists(st.integers(0, 99)), max_size=3)
)
KEYS = st.from_regex(r"[a-z][a-z-]{0,8}", fullmatch=True)


@given(
    st.dictionaries(KEYS.filter(lambda key: key != "nccl"), VALUES, max_size=4),
    st.dictionaries(KEYS, VALUES, max_size=3),
)
def test_whatever_is_changed_toml_reads_back(flags: dict[str, Any], inner: dict[str, Any]) -> None:
    changes = {**flags, **{f"zz-config.{name}": value for name, value in inner.items()}}
    read = tomllib.loads(setups.body("64k", changes, ["why"], "mine"))
    expected = {**flags, **({"zz-config": inner} if inner else {})}
    assert read.get("flags", {}) == expected
