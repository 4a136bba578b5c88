"""A result for everyone: made of a real one, and what may not be in it is refused with a sentence."""

from __future__ import annotations

import copy
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint import shared_result
from dsv4_serve.entrypoint.errors import ConfigError, HostError

ROOT = Path(__file__).parents[2]
TODAY = date(2026, 11, 29)
KNOWN = ["cpu", "h200"]
BENCH = json.loads(
    (ROOT / "qualification/results/bench/w4a16-h200-tp2-64k-dummy-pair-plan-20261122T230511Z.json").read_text()
)
CHECK = {"name": "known-answers", "verdict": "pass", "detail": "270 of 270 tokens"}


def made(**changed: Any) -> dict[str, Any]:
    """What the program writes of a measurement of ours, with a made-up owner; nobody gave it."""
    body = shared_result.shared("bench", BENCH["replica"], BENCH["weights"], TODAY, rows=BENCH["rows"])
    return {**copy.deepcopy(body), "who": "nobody", **changed}


def row(**changed: Any) -> dict[str, Any]:
    return {**made()["rows"][0], **changed}


def test_what_is_written_of_a_real_result_passes_once_it_has_a_name() -> None:
    assert shared_result.problems(made(), TODAY, KNOWN) == []
    assert shared_result.problems(made(who=""), TODAY, KNOWN) == [
        "who is empty: write the name that the result is shown with."
    ]
    assert (made()["hardware"], made()["gpus"], made()["driver"], made()["series"]) == (
        "h200",
        2,
        "580.159.04",
        "0.32.0",
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gpus": "2"}, "gpus"),
        ({"gpus": True}, "gpus"),
        ({"date": "yesterday"}, "date"),
        ({"date": "2026-02-31"}, "'2026-02-31' is not a day"),
        ({"date": (TODAY + timedelta(1)).isoformat()}, "in the future"),
        ({"date": "2025-11-29"}, "before 2026-11-01"),
        ({"hardware": "h900"}, "hardware 'h900' is unknown"),
        ({"versions": {"torch": "2.13.0"}}, "no vllm"),
        ({"versions": {"vllm": "/opt/vllm"}}, "versions"),
        ({"plan": "no digest"}, "plan"),
        ({"weights": "what I have"}, "weights is"),
        ({"rows": []}, "neither rows nor checks"),
        ({"rows": [row(acceptance=1.2)]}, "rows.0.acceptance"),
        ({"rows": [row(output_tokens_per_second=float("inf"))]}, "output_tokens_per_second"),
        ({"rows": [row(output_tokens_per_second=9000.0)]}, "9000 tokens a second are more than 1 requests"),
        ({"rows": [row(tpot_p50=0.0)]}, "cannot come at once"),
        ({"rows": [row(ttft_p50=-1.0)]}, "ttft_p50"),
        ({"note": "hello"}, "note"),
        ({"who": "Jane Doe <jane>"}, "who"),
        ({"format": 2}, "format"),
        ({"changes": {"model": "/data/weights/x"}}, "holds a path"),
        ({"changes": {"NCCL_SOCKET_IFNAME": "node-7.rack.internal"}}, "holds a host name"),
        ({"changes": {"api-key": "sesame-99"}}, "holds a secret"),
        ({"changes": {"x": "y" * 400}}, "very long"),
        ({"checks": [{**CHECK, "detail": "see http://box:8000"}]}, "holds an address"),
        ({"checks": [{**CHECK, "detail": "on 10.0.0.7"}]}, "holds an IP address"),
        ({"checks": [{**CHECK, "detail": "as root@gpu7"}]}, "user at a host"),
        ({"checks": [{**CHECK, "detail": "token hf_abcdefghij"}]}, "holds a secret"),
        ({"checks": [{**CHECK, "detail": "log in ~/runs/7/log"}]}, "holds a path"),
        ({"checks": [{**CHECK, "verdict": "good"}]}, "verdict"),
    ],
)  # fmt: skip
def test_what_may_not_be_there_is_refused_with_a_sentence(changed: dict[str, Any], message: str) -> None:
    [first, *_] = shared_result.problems(made(**changed), TODAY, KNOWN)
    assert message in first
    assert first.endswith(".")


def test_ordinary_texts_pass() -> None:
    texts = ("48 of 48 tokens, accepted 0.98", "TP=2, k=1; 0.90 against 0.89", "vLLM 0.32.0, 2.13.0+cu130", "ratio 1/2")
    for text in texts:
        assert shared_result.unfit(text) == "", text
    schedule = {"speculative-config.num_speculative_tokens_per_batch_size": [[1, 4, 5], [5, 64, 0]]}
    assert shared_result.problems(made(kind="tune", changes=schedule, checks=[CHECK]), TODAY, KNOWN) == []


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=5))  # fmt: skip
def test_anything_else_is_refused_and_nothing_breaks(body: Any) -> None:
    assert shared_result.problems(body, TODAY, KNOWN)


def test_the_digest_is_of_the_plan_and_not_of_the_host() -> None:
    replica = copy.deepcopy(BENCH["replica"])
    replica["settings"] = {"max-num-seqs": {"value": 16}, "port": {"value": 8000}, "model": {"value": "/a"}}
    before = shared_result.digest(replica)
    replica["settings"] |= {"port": {"value": 9000}, "model": {"value": "/b"}}
    replica["env"] |= {"TRITON_CACHE_DIR": "/elsewhere", "CUDA_VISIBLE_DEVICES": "2,3", "HF_TOKEN": "hf_x"}
    assert shared_result.digest(replica) == before
    replica["settings"]["max-num-seqs"] = {"value": 8}
    assert shared_result.digest(replica) != before
    replica["settings"]["max-num-seqs"] = {"value": 16}
    replica["env"]["NCCL_PROTO"] = "LL"
    assert shared_result.digest(replica) != before


def test_a_file_is_written_once_and_never_with_what_should_not_be_published(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    shared_result.check_writable(path)
    shared_result.write(path, made())
    assert json.loads(path.read_text()) == made()
    with pytest.raises(HostError, match="it exists"):
        shared_result.check_writable(path)
    with pytest.raises(HostError, match="File exists"):
        shared_result.write(path, made())
    with pytest.raises(HostError, match="its folder does not exist"):
        shared_result.check_writable(tmp_path / "none" / "mine.json")
    with pytest.raises(ConfigError, match="holds a path"):
        shared_result.write(tmp_path / "other.json", made(changes={"model": "/data/x/y"}))
    assert not (tmp_path / "other.json").exists()
