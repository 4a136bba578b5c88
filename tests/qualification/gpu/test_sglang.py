"""What SGLang is started with, so that it does the same work as ours."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from dsv4_serve.entrypoint.bench import compare, routing
from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.client.local_replica import Started
from dsv4_serve.entrypoint.doctor import installed_patches
from dsv4_serve.entrypoint.machine.machine import read_machine
from dsv4_serve.entrypoint.supervisor import provenance
from qualification.gpu import keep, sglang, speed, variants

FILE = Path(speed.__file__).with_name("sglang.toml")
NAMES = [one["name"] for one in variants.read(FILE, 2)]


def test_accepted_tokens_are_those_of_the_synthetic_rates() -> None:
    found = sglang.variables([0.5, 0.25])
    assert found["SGLANG_SIMULATE_ACC_LEN"] == "1.7500"
    assert found["SGLANG_SIMULATE_UNIFORM_EXPERTS"] == "1"
    assert sglang.variables([]) == {"SGLANG_SIMULATE_UNIFORM_EXPERTS": "1"}


def test_an_mtp_head_verifies_one_token_more_than_it_drafts_and_dspark_drafts_its_block() -> None:
    flags = sglang.drafting("mtp", 3)
    assert flags[flags.index("--speculative-num-steps") + 1] == "3"
    assert flags[flags.index("--speculative-num-draft-tokens") + 1] == "4"
    assert sglang.drafting("dspark", 5)[-2:] == ["--speculative-dspark-block-size", "5"]
    assert sglang.drafting("", 0) == []
    with pytest.raises(ValueError, match="'ngram'"):
        sglang.drafting("ngram", 2)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--enable-symm-mem"], "--enable-symm-mem"),
        (["--flashinfer-allreduce-fusion-backend", "mnnvl"], "mnnvl"),
        (["--flashinfer-allreduce-fusion-backend=mnnvl"], "mnnvl"),
    ],
)
def test_a_flag_that_uses_multicast_is_refused(flags: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named} uses NVLink multicast"):
        sglang.command("folder", 2, [], flags)


@pytest.mark.parametrize(("state", "mean"), [({"avg_spec_accept_length": 1.88888}, 1.889), ({}, None)])
def test_tokens_a_step_are_those_that_sglang_counted(
    monkeypatch: pytest.MonkeyPatch, state: dict[str, float], mean: float | None
) -> None:
    asked: list[str] = []

    def get(url: str, _key: object) -> httpx.Response:
        asked.append(url)
        return httpx.Response(200, json={"internal_states": [state]})

    monkeypatch.setattr(sglang.http, "get", get)
    assert sglang.tokens_a_step(Endpoint("http://127.0.0.1:1")) == mean
    assert asked == ["http://127.0.0.1:1/server_info"]


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"internal_states": []}', '{"internal_states": [null]}', "404"])
def test_rows_are_kept_where_an_engine_answers_otherwise(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    monkeypatch.setattr(sglang.http, "get", lambda *_: httpx.Response(200, text=body))
    assert sglang.tokens_a_step(Endpoint("http://127.0.0.1:1")) is None


def test_no_tokens_are_counted_where_nothing_answers() -> None:
    assert sglang.tokens_a_step(Endpoint("http://127.0.0.1:1")) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("applied", "strategy"), [({routing.PATCH}, "uniform_spread"), (set(), "uniform_random")])
def test_every_engine_of_a_comparison_does_the_same_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, applied: set[str], strategy: str
) -> None:
    monkeypatch.setenv("HARDWARE", "h200")
    monkeypatch.setattr(installed_patches, "applied_patches", lambda: applied)
    started: list[Any] = []
    monkeypatch.setattr(speed, "stock", lambda argv, environ, *_: started.append((argv, environ)))
    monkeypatch.setattr(speed.local_replica, "replica", lambda argv, environ, *_: started.append((argv, environ)))
    [variant] = variants.read(FILE, 2, [name])
    how = speed.planned(variant, {**os.environ, "DSV4_CACHE": str(tmp_path), "DSV4_VLLM": "vllm"})
    _, tokenizer = speed.starting(variant, how, tmp_path, 1.0)
    [(argv, environ)] = started
    words = " ".join(argv)
    assert Path(tokenizer.name, "tokenizer.json").is_file()
    dspark = "dspark" in name
    if variant["engine"] == "sglang":
        assert environ["SGLANG_SIMULATE_ACC_LEN"] == ("3.5096" if dspark else "1.8900")
        assert ("DSPARK" if dspark else "EAGLE") in argv
        assert environ["SGLANG_SIMULATE_UNIFORM_EXPERTS"] == "1"
        assert how.weights.endswith(", experts uniform_spread")  # whatever vLLM has
    else:
        assert ("0.285952" if dspark else "[0.89]") in words
        assert environ["VLLM_MOE_ROUTING_SIMULATION_STRATEGY"] == strategy
        assert how.weights.endswith(f", experts {strategy}")
    assert ('"method": "dspark"' in words) == (variant["engine"] == "vllm" and dspark)
    assert tokenizer.name in words
    assert ("dummy" in argv, "prefix-caching" in words) == (True, False)


def test_one_gpu_measures_ours_alone_because_sglang_cannot_serve_a_share() -> None:
    assert [one["share"] for one in variants.read(FILE, 1, ["ours-mtp", "ours-dspark"])] == [2, 2]
    with pytest.raises(SystemExit, match=r"SGLang cannot serve one GPU's share \(sglang-mtp\): FlashMLA .*--gpus"):
        variants.read(FILE, 1, ["ours-mtp", "sglang-mtp"])


def test_all_variants_measure_the_same_rows_with_prompts_of_their_own() -> None:
    found = variants.read(FILE, 2)
    rows = [(one["batches"], one["inputs"], one["also"], one["requests"]) for one in found]
    assert rows.count(rows[0]) == len(rows)
    cells = {(b, i) for group in [found[0], *found[0]["also"]] for b in group["batches"] for i in group["inputs"]}
    assert cells == {(batch, length) for batch in (1, 4, 16, 64) for length in (256, 1024, 16000)}


def test_each_group_of_rows_has_other_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def rows(_where: object, _model: str, matrix: Any, *_: object) -> list[Any]:
        seeds.extend(shape.seed for shape in matrix.shapes())
        return []

    monkeypatch.setattr(speed.other_engine, "version", lambda _: "0.5.23")
    monkeypatch.setattr(speed.sglang, "tokens_a_step", lambda _: 3.51)

    class Running:
        def __enter__(self) -> Started:
            where = type("Where", (), {"health": None, "models": lambda _: [type("Model", (), {"id": "m"})]})()
            return Started(where, tmp_path, {}, None)  # type: ignore[arg-type]

        def __exit__(self, *_: object) -> None:
            pass

    [variant] = variants.read(FILE, 2, ["sglang-dspark"])
    monkeypatch.setenv("HARDWARE", "h200")
    monkeypatch.setattr(speed.measure, "rows", rows)
    monkeypatch.setattr(speed, "starting", lambda *_: (Running(), None))
    result = speed.measured(variant, {**os.environ, "DSV4_CACHE": str(tmp_path)}, tmp_path / "x", 1.0, "vllm")
    assert (result.failed, result.version, result.tokens_a_step) == ("", "0.5.23", 3.51)
    assert result.machine == provenance.hardware(read_machine(os.environ))
    assert result.machine["cores"] > 0
    assert result.hardware == "h200"
    assert len(set(seeds)) == len(seeds) == 12


def test_a_kept_result_names_the_engine_and_its_version() -> None:
    [variant] = variants.read(FILE, 2, ["sglang-mtp"])
    found = asdict(speed.Result(variant, version="0.5.23", weights="dummy weights", tokens_a_step=1.889))
    body = keep.body(found, datetime(2026, 11, 29, tzinfo=UTC))
    assert body["tokens_a_step"] == 1.889
    assert body["subject"] == "flash-h200-tp2-sglang-dummy-sglang-mtp"
    assert body["replica"] == {"versions": {"sglang": "0.5.23"}}  # as of a file that names no machine
    assert body["variant"]["env"]["SGLANG_JIT_DEEPGEMM_PRECOMPILE"] == "0"
    assert body["variant"]["engine"] == "sglang"


def test_a_kept_result_of_replicas_names_their_number_and_no_folder_of_the_host() -> None:
    [variant] = variants.read(FILE.with_name("four.toml"), 4, ["two-tp2"])
    choices = {"model-name": "w4a16", "hardware": "h200", "profile": "64k"}
    served: dict[str, Any] = {"choices": choices, "argv": ["/data/h/home/dsv4/x"]}
    served["settings"] = {"tensor-parallel-size": {"value": 2}}
    found = asdict(speed.Result(variant, replica=served, weights="dummy weights"))
    body = keep.body(found, datetime(2026, 11, 30, tzinfo=UTC), "/data/h")
    assert body["subject"] == "w4a16-h200-tp2-64k-dummy-two-tp2"
    assert (body["variant"]["replicas"], body["variant"]["tp"]) == (2, 2)
    assert body["replica"]["argv"] == ["dsv4/x"]


GPU = {"name": "NVIDIA H200", "memory_mib": 143771}
MACHINE = {"gpus": [GPU, GPU], "driver": "580.105.08", "cpu": "Xeon", "cores": 48}


def kept(**more: Any) -> dict[str, Any]:
    """What is kept of one row of SGLang."""
    [variant] = variants.read(FILE, 2, ["sglang-mtp"])
    row = {"batch": 1, "input": 256, "output": 256, "output_tokens_per_second": 9.0, "tpot_p50": 1.0, "ttft_p50": 2.0}
    found = asdict(speed.Result(variant, version="0.5.23", weights="dummy weights", rows=[row], **more))
    return keep.body(found, datetime(2026, 11, 29, tzinfo=UTC)) | {"file": "x"}


def test_a_kept_result_names_the_machine_by_which_results_are_compared() -> None:
    one = kept(machine=MACHINE, hardware="rtx-pro-6000")
    assert one["replica"] == {"versions": {"sglang": "0.5.23"}, "machine": MACHINE}
    assert one["subject"] == "flash-rtx-pro-6000-tp2-sglang-dummy-sglang-mtp"
    ours = {**one, "replica": {"settings": {}, "machine": MACHINE, "argv": ["vllm", "serve"]}}
    assert compare.compared(ours, one)["differs"].keys() == {"plan", "version of sglang"}
    other = kept(machine={**MACHINE, "gpus": [GPU], "driver": "590.1"})
    differs = compare.compared(one, other)["differs"]
    assert differs == {"GPUs": ["2 x NVIDIA H200", "1 x NVIDIA H200"], "driver": ["580.105.08", "590.1"]}
    assert compare.compared(one, kept())["differs"]["GPUs"] == ["2 x NVIDIA H200", "unknown"]
