"""
`dsv4 tune` on real vLLM: a drafter that does not draft is refused by the gate.

The plan was measured by a run before it, which was interrupted: `dsv4 bench` measures a real vLLM in tests/demo/test_cli.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dsv4_serve.demo.llama import write_checkpoint
from dsv4_serve.entrypoint.bench.options import LoadMatrix, ServeOptions
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.tune import command, run
from dsv4_serve.entrypoint.tune.candidates import TuneCandidate
from dsv4_serve.entrypoint.tune.options import TuneRequest
from tests.entrypoint.tune.test_candidates import resolver
from tests.support.plans import request
from tests.support.running_demo import PATIENT

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.deep]
LOOKUP = "speculative-config.prompt_lookup_min", "speculative-config.prompt_lookup_max"
BROKEN = TuneCandidate("drafts-nothing", "drafts", dict.fromkeys(LOOKUP, 60), "no 60 tokens in a row are ever the same")


MEANS = ("output_tokens_per_second", "tpot_p50", "tpot_p99", "ttft_p50", "ttft_p99", "acceptance")
ROW = {"batch": 1, **dict.fromkeys(MEANS, 1.0)}
PLAN = {"setup": [], "speeds": {1: 1.0}, "seconds": 1.0, "rows": [ROW]}


def test_a_candidate_that_breaks_the_drafter_does_not_count_however_fast_it_starts(tmp_path: Path) -> None:
    model = f"demo={write_checkpoint(tmp_path / 'model')}"
    asked = request(profile="demo", model=model, hardware="cpu")
    resolve = resolver(asked, HostGpus("cpu", "test", 0))
    context = command.TuneContext(resolve("", []), asked, resolve, {})
    one = TuneRequest(LoadMatrix((1,), (8,), 8), 3600, "mine", tmp_path)
    found = command.settled(context, one, [BROKEN])
    assert found.left_out == {}
    serve = ServeOptions({"model": model, "hardware": "cpu"}, flags=("--gate.tokens", "24"))
    environ = {**os.environ, **PATIENT, "TMPDIR": str(tmp_path)}  # its kernel cache is that of other starts of the demo
    kept = run.file_of(one, run.key(context.plan.plan, one, context.machine))
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps(PLAN) + "\n", encoding="utf-8")
    result = command.tune(found, context, one, serve, environ)
    [broken] = result["candidates"]
    assert broken["verdict"] == "failed"
    assert "draft gate" in broken["why"]
    assert [start["setup"] for start in result["starts"]] == [[], ["drafts-nothing"]]
    assert (result["best"], result["finished"]) == ([], True)
