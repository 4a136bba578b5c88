"""The pages of checks and refusals: complete, and true to what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.cli.parser import parse
from dsv4_serve.entrypoint.cli.request import request
from dsv4_serve.entrypoint.doctor.registry import GROUPS, NAMES
from dsv4_serve.entrypoint.errors import UserError
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.resolve import constraints
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import select
from tests.support import checkpoints
from tools.reference import checks, refusals

LAST = 62
"""The last number of a known failure."""
REFUSED = {
    "tool-strict-parameter": ["--tool-strict-level", "parameter"],
    "no-deep-gemm": ["VLLM_USE_DEEP_GEMM=0"],
    "graph-memory": ["VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0"],
    "graph-sizes": ["--max-cudagraph-capture-size", "1"],
    "w4a16-marlin-sm120": ["--model", "w4a16", "--moe-backend", "marlin", "--hardware", "rtx-pro-6000"],
    "offloading-in-shared-memory": ["--hardware", "gb10", "--model", "w4a16", "--kv-offloading-size", "8"],
    "pro-hardware": ["--model", "pro-nvfp4", "--profile", "pro", "--hardware", "h200"],
    "model-files": ["--model", "flash=deepseek-ai/DeepSeek-V4.1-Flash"],
    "quantization": ["--model", "w4a16", "--quantization", "awq"],
    "kv-offloading": [
        "--kv-offloading-size",
        "8",
        "--kv-transfer-config",
        '{"kv_connector_extra_config": {"secondary_tiers": [{"type": "fs", "root_dir": "/kv"}]}}',
    ],
    "weight-cache": ["--model", "w4a16", "--load-format", "ipc_cache"],
    "draft-dspark-fields": ["--model", "FOLDER"],
    "drafter-method": ["--speculative-config.method", "dspark"],
    "dspark-block": ["--model", "flash-0731", "--speculative-config.num_speculative_tokens", "7"],
    "mtp-depth": ["--model", "flash", "--speculative-config.num_speculative_tokens", "4"],
    "k-by-load": ["--speculative-config.num_speculative_tokens_per_batch_size", "[[2, 4, 1]]"],
    "profile-model": ["--model", "acti", "--profile", "pro", "--hardware", "b300", "--tp", "8"],
    "profile-hardware": ["--hardware", "cpu", "--model", "acti"],
    "tensor-parallel-size": ["--tp", "16"],
    "gpu-count": ["--tp", "4"],
    "nodes": ["--nnodes", "2", "--node-rank", "1"],
    "expert-slices": ["--data-parallel-size", "3", "--skip", "gpu-count"],
    "context-parallel": ["--decode-context-parallel-size", "2"],
    "moe-backend": ["--model", "nvfp4", "--moe-backend", "flashinfer_b12x"],
    "draft-moe-backend": ["--model", "w4a16", "--speculative-config.moe_backend", "marlin"],
    "attention-backend": ["--attention-backend", "FLASHINFER_MLA_SPARSE"],
    "kv-cache-dtype": ["--kv-cache-dtype", "nvfp4_ds_mla"],
    "block-size": ["--block-size", "128"],
    "indexer-kv-dtype": ["--attention-config.indexer_kv_dtype", "mxfp4"],
    "sparse-indexer-topk-backend": ["--sparse-indexer-topk-backend", "deep_select"],
    "linear-backend": ["--linear-backend", "humming"],
    "max-model-len": ["--max-model-len", "2000000", "--skip", "kv-cache"],
    "weights": [
        "--model",
        "w4a16",
        "--profile",
        "64k",
        "--hardware",
        "rtx-pro-6000",
        "--tp",
        "1",
        "--skip",
        "tensor-parallel-size",
    ],
    "kv-cache": ["--model", "nvfp4", "--hardware", "rtx-pro-6000", "--profile", "1m"],
    "log-config": ["--log-config-file", "mine.json"],
    "log-off": ["VLLM_CONFIGURE_LOGGING=0"],
    "log-level": ["VLLM_LOGGING_LEVEL=CRITICAL"],
    "log-stream": ["VLLM_LOGGING_STREAM=mine.log"],
    "no-http": ["--uds", "/run/vllm.sock"],
    "rust-frontend": ["--grpc-port", "9000"],
    "no-metrics": ["--disable-log-stats"],
    "traces-endpoint": ["--collect-detailed-traces", "all"],
    "expandable-segments": ["PYTORCH_ALLOC_CONF=expandable_segments:True"],
    "expandable-segments-with-kv-connector": [
        "PYTORCH_ALLOC_CONF=expandable_segments:True",
        "--kv-transfer-config",
        '{"kv_connector": "NixlConnector", "kv_role": "kv_both"}',
    ],
    "a flag given twice": ["--served-model-name", "one", "--served-model-name", "other"],
    "a word that is no flag": ["serve"],
}


def plan(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for word in words:
        if re.match(r"[A-Z_]+=", word):
            monkeypatch.setenv(*word.split("=", 1))
    words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    options, flags = parse(["explain", *words])
    requested = request(options, flags)
    resolve(select(Catalog([]), requested, lambda: HostGpus("h200", "test", count=2)), requested)


def test_every_rule_of_the_shipped_profile_files_is_listed() -> None:
    assert {rule.name for _, rule in refusals.rules()} == refusals.RULES.keys()


def test_every_constraint_that_no_file_makes_is_listed() -> None:
    assert refusals.SCOPE.keys() == constraints.BUILT_IN


def test_what_is_listed_as_refused_is_what_this_test_makes() -> None:
    assert REFUSED.keys() == {*refusals.RULES, *refusals.SCOPE, *refusals.READING}


@pytest.mark.parametrize("name", REFUSED)
def test_a_listed_refusal_refuses(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = checkpoints.LAYOUTS["flash-0731"](tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"dspark_block_size": 999}), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        plan([str(folder) if word == "FOLDER" else word for word in REFUSED[name]], monkeypatch)
    if name not in refusals.READING:
        assert f"--skip {name}." in str(caught.value)


def test_every_remedy_says_something() -> None:
    for group in GROUPS.values():
        for check in group:
            assert re.search(r"\w{2}", checks.remedy(check)), check


def test_names_are_distinguished() -> None:
    assert len(NAMES) == sum(map(len, GROUPS.values()))


def test_at_least_thirty_known_failures_are_caught_before_a_start() -> None:
    covered = checks.covered()
    assert set(covered) <= set(range(1, LAST + 1))
    assert len(covered) >= 30
