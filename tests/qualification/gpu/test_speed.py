"""What speed.py makes of a file of variants, before any GPU is there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.bench import sweep, without_weights
from dsv4_serve.entrypoint.bench.options import ADDED
from dsv4_serve.entrypoint.plan import draft_tokens, plain
from qualification.gpu import returning, speed, variants

FLASH = without_weights.SIZES["deepseek-v4-flash"]


def flags_of(variant: Mapping[str, Any]) -> dict[str, Any]:
    return plain(speed.resolved(variant)[-1].flags)


def test_a_share_has_a_part_of_what_gpus_split_and_all_of_what_each_holds() -> None:
    half = speed.share(FLASH, 2)
    assert (half.heads, half.o_groups, half.inter, half.vocab) == (32, 4, 1024, 64640)
    assert (half.hidden, half.q_lora, half.experts, half.ratios) == (4096, 1024, 256, FLASH.ratios)


def test_a_share_is_served_on_one_gpu_as_the_plan_of_the_whole_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARDWARE", "h200")
    file = tmp_path / "variants.toml"
    file.write_text('flags = ["--max-num-seqs", 16]\ntp = 1\nshare = 2\n[[variant]]\nname = "half"\n')
    [variant] = variants.read(file, 1)
    how = speed.planned(variant, {**os.environ, "DSV4_CACHE": str(tmp_path)})
    assert how.weights == "dummy weights, synthetic acceptance 0.89, experts uniform_random, one GPU's share of 2"
    assert how.environ["VLLM_MOE_ROUTING_SIMULATION_STRATEGY"] == "uniform_random"
    folder = Path(how.serve[how.serve.index("--model") + 1].partition("=")[2])
    assert json.loads((folder / "config.json").read_text())["num_attention_heads"] == 32
    assert how.serve[how.serve.index("--tp") + 1] == "1"
    assert sweep.lengths(how.plan)[-1] == 8192


def test_variants_add_to_what_they_share_and_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "variants.toml"
    file.write_text('flags = ["--a"]\nenv = {A = "1"}\n[[variant]]\nname = "x"\nflags = ["--b"]\nenv = {B = "2"}\n')
    [variant] = variants.read(file, 2)
    assert (variant["flags"], variant["env"]) == (["--a", "--b"], {"A": "1", "B": "2"})
    file.write_text('[[variant]]\nname = "x"\nbatch = 1\n')
    with pytest.raises(SystemExit, match="unknown \\['batch'\\]"):
        variants.read(file, 2)


def test_ways_are_split_over_the_gpus_that_are_given_and_the_rest_is_a_share(tmp_path: Path) -> None:
    file = tmp_path / "variants.toml"
    file.write_text('ways = 2\n[[variant]]\nname = "x"\n[[variant]]\nname = "y"\n')
    found = {gpus: [(one["tp"], one["share"]) for one in variants.read(file, gpus, ["y"])] for gpus in (1, 2)}
    assert found == {1: [(1, 2)], 2: [(2, 1)]}
    with pytest.raises(SystemExit, match="2 ways cannot be served on 3 GPUs"):
        variants.read(file, 3)
    with pytest.raises(SystemExit, match=r"no variant \['z'\]; there are \['x', 'y'\]"):
        variants.read(file, 2, ["z"])


K_BY_LOAD = Path(speed.__file__).with_name("k_by_load.toml")


@pytest.mark.parametrize("name", [one["name"] for one in variants.read(K_BY_LOAD, 1)])
def test_each_variant_of_k_by_load_resolves_and_has_a_graph_for_each_batch(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HARDWARE", "h200")
    [variant] = variants.read(K_BY_LOAD, 1, [name])
    for key, value in variant["env"].items():
        monkeypatch.setenv(key, value)
    flags = flags_of(variant)
    tokens = int(name.partition("-k")[2] or 0)
    assert draft_tokens(flags) == tokens
    batches = [*variant["batches"], *variant["also"][0]["batches"]]
    assert batches == [1, 4, 16, 64]
    captured = flags["cudagraph-capture-sizes"]
    assert captured == sorted({*(batch * (1 + tokens) for batch in batches), 288, 576, 1152, 2304})
    assert [size % (1 + tokens) for size in captured] == [0] * len(captured)


def test_both_numbers_of_drafts_are_measured_at_the_same_depths_in_graphs_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HARDWARE", "h200")
    for variant in variants.read(Path(speed.__file__).with_name("k_at_depth.toml"), 1):
        flags = flags_of(variant)
        step = 1 + draft_tokens(flags)
        assert f"dspark-k{step - 1}" == variant["name"]
        captured = flags["cudagraph-capture-sizes"]
        assert captured == sorted({*(batch * step for batch in variant["batches"]), 288, 576, 1152, 2304})
        assert flags["max-num-batched-tokens"] % step == 0


@pytest.mark.parametrize("gpus", [1, 2])
def test_each_variant_of_long_prompts_resolves_with_its_bound(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setenv("HARDWARE", "h200")
    found = {}
    for variant in variants.read(Path(speed.__file__).with_name("long_prompts.toml"), gpus):
        values = flags_of(variant)
        found[variant["name"]] = values["long-prefill-token-threshold"]
        assert variant["beside"] < values["max-model-len"]
    assert found == {"half-step": 4096, "whole-step": 0, "quarter-step": 2048}


MANY = [(name, gpus) for name in ("four", "four_as_shipped", "eight") for gpus in (2, {"eight": 8}.get(name, 4))]


@pytest.mark.parametrize(("name", "gpus"), MANY)
def test_each_variant_for_many_gpus_resolves_to_its_shape(
    monkeypatch: pytest.MonkeyPatch, name: str, gpus: int
) -> None:
    monkeypatch.setenv("HARDWARE", "h200")
    for variant in variants.read(Path(speed.__file__).with_name(f"{name}.toml"), gpus):
        flags = flags_of(variant)
        ranks = flags["tensor-parallel-size"] * flags.get("data-parallel-size", 1) * variant["replicas"]
        assert ranks in ({gpus} if variant["ways"] else {gpus, 4, 8}), variant["name"]
        assert flags.get("enable-expert-parallel", False) == variant["name"].endswith("-ep")
        steps = 1 + draft_tokens(flags)
        places = flags.get("data-parallel-size", 1)
        decodes = {-(-batch // places) * steps for batch in variant["batches"]}
        assert {size for size in decodes if size <= flags["max-num-seqs"] * steps} <= set(
            flags["cudagraph-capture-sizes"]
        )


@pytest.mark.parametrize("name", ["batch_one", "contexts", "k_at_depth", "returning", "shape"])
def test_each_prompt_fits_the_context_of_its_variant(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HARDWARE", "h200")
    for variant in variants.read(Path(speed.__file__).with_name(f"{name}.toml"), 2):
        flags = flags_of(variant)
        for rows in [variant, *variant["also"]]:
            history = rows.get("history", variant["history"])
            longest = max(rows["inputs"]) + history + variant["output"]
            assert longest + ADDED <= flags["max-model-len"], variant["name"]
            places = flags["max-num-seqs"] * flags.get("data-parallel-size", 1)
            assert max(rows["batches"]) <= places, variant["name"]
        for tokens, _ in variant["returning"]:
            assert tokens + returning.TURN + returning.OUTPUT <= flags["max-model-len"], variant["name"]
        if (
            name == "contexts" and not variant["returning"]
        ):  # as long as it can be, the history of a second turn and two prompts at once too
            assert variant["name"] == variant["profile"]
            full = flags["max-model-len"] - variant["output"] - ADDED
            ends = [
                [length + rows.get("history", 0) for length in rows["inputs"]] for rows in [variant, *variant["also"]]
            ]
            assert {length for row in ends for length in row} == set(variant["inputs"])
            assert full in variant["inputs"]
