"""`dsv4 tune` on real vLLM: the plan is measured, and a drafter that does not draft is refused by the gate."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dsv4_serve.demo.llama import write_checkpoint
from dsv4_serve.entrypoint.bench.options import LoadMatrix, ServeOptions
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.tune import command
from dsv4_serve.entrypoint.tune.candidates import TuneCandidate
from dsv4_serve.entrypoint.tune.options import TuneRequest
from tests.entrypoint.tune.test_candidates import resolver
from tests.support.plans import request

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
LOOKUP = "speculative-config.prompt_lookup_min", "speculative-config.prompt_lookup_max"
BROKEN = TuneCandidate("drafts-nothing", "drafts", dict.fromkeys(LOOKUP, 60), "no 60 tokens in a row are ever the same")


def test_a_candidate_that_breaks_the_drafter_does_not_count_however_fast_it_starts(tmp_path: Path) -> None:
    model = f"demo={write_checkpoint(tmp_path / 'model')}"
    asked = request(profile="demo", model=model, hardware="cpu")
    resolve = resolver(asked, HostGpus("cpu", "test", 0))
    around = command.Around(resolve("", []), asked, resolve, {})
    one = TuneRequest(LoadMatrix((1,), (8,), 8), 3600, "mine", tmp_path)
    found = command.settled(around, one, [BROKEN])
    assert found.left_out == {}
    serve = ServeOptions({"model": model, "hardware": "cpu"}, flags=("--gate.tokens", "24"))
    environ = {**os.environ, "DSV4_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    result = command.tune(found, around, one, serve, environ)
    [broken] = result["candidates"]
    assert broken["verdict"] == "failed"
    assert "draft gate" in broken["why"]
    assert [start["setup"] for start in result["starts"]] == [[], ["drafts-nothing"]]
    [row] = result["before"]
    assert row["output_tokens_per_second"] > 0
    assert (result["best"], result["finished"]) == ([], True)
