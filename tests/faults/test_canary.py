"""`dsv4 canary` before two replicas of real vLLM, one with a draft model whose head was shuffled."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dsv4_serve.demo.llama import write_checkpoint
from tests.deploy.stage import CANDIDATE, STABLE, Stage, staged
from tests.support import load
from tests.support.balancer import KEY
from tests.support.patience import slowness
from tests.support.program import need

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
# Few requests on a busy CPU have no steady time to first token.
QUICK = ("--minutes-per-step", "0.1", "--least-drafts", "100", "--least-requests", "5", "--ttft-ratio", "20")


def scrambled(folder: Path) -> Path:
    """The demo's checkpoint as a drafter that proposes the wrong tokens."""
    weights = write_checkpoint(folder) / "model.safetensors"
    tensors = load_file(weights)
    head = tensors["lm_head.weight"]
    tensors["lm_head.weight"] = head[np.random.default_rng(0).permutation(len(head))]
    save_file(tensors, weights, metadata={"format": "pt"})
    return folder


def drafts_by(model: Path) -> tuple[str, str]:
    config = {"method": "draft_model", "model": str(model), "num_speculative_tokens": 2}
    return "--speculative-config", json.dumps(config)


def answer(stage: Stage, address: str) -> str:
    body = {"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0}
    key = {"Authorization": f"Bearer {KEY}"}
    url = f"http://{address}:{stage.port}/v1/completions"
    return httpx.post(url, json=body, headers=key, timeout=60 * slowness(), trust_env=False).json()["choices"][0][
        "text"
    ]


def test_a_shuffled_drafter_is_rolled_back_and_a_sound_one_promoted_with_no_stream_lost(
    tmp_path: Path,
) -> None:
    binary = need("haproxy", "HAPROXY")
    model = write_checkpoint(tmp_path / "model")
    words = {STABLE: drafts_by(model), CANDIDATE: drafts_by(scrambled(tmp_path / "scrambled"))}
    settings = {"PROFILE": "demo", "MODEL": f"demo={model}", "DSV4_SUPERVISE_STALL_STARTING": "900"}
    served = {"DSV4_GATE_BELOW_FLOOR": "warn"}  # the draft gate refuses it otherwise
    with staged(tmp_path, binary, settings, served, words, seconds=300) as stage:
        assert answer(stage, STABLE) == answer(stage, CANDIDATE) != ""
        with load.load(stage.balancer.url, clients=4, tokens=30) as steady:
            status, result = stage.canary(*QUICK, "--steps", "50")
        assert status == 1
        assert result["verdict"].startswith("Rolled back at 50 %: candidates accept 0% of "), result["verdict"]
        assert [one["state"] for one in result["steps"][0]["findings"] if one["rule"] == "answers"] == ["good"]
        stage.swap()
        stage.until_up()
        with load.load(stage.balancer.url, clients=4, tokens=30) as again:
            status, result = stage.canary(*QUICK, "--steps", "50,100")
        assert (status, result["ok"]) == (0, True), result["verdict"]
        assert steady.failed() == again.failed() == []
