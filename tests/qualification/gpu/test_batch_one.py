"""What batch_one.toml changes, and that what it leaves out cannot act: read in the installed vLLM, without importing it."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.plan import TUNED_KERNELS
from qualification.gpu import speed, variants
from tests.support.variants import changes, settings

FILE = Path(speed.__file__).with_name("batch_one.toml")
CHANGES: dict[str, dict[str, Any]] = {
    "plan": {},
    "no-tables": {TUNED_KERNELS: ""},
    "nccl": {"disable-custom-all-reduce": True},
    "full-graphs": {"compilation-config.cudagraph_mode": "FULL"},
    "one-stream": {"VLLM_DISABLE_SHARED_EXPERTS_STREAM": "1"},
    "gemm-streams": {"VLLM_MULTI_STREAM_GEMM_TOKEN_THRESHOLD": "8192"},
    "one-gemm-stream": {"VLLM_MULTI_STREAM_GEMM_TOKEN_THRESHOLD": "0"},
    "fp8-deepgemm": {"VLLM_BLOCKSCALE_FP8_GEMM_FLASHINFER": "0"},
    "fp8-shared": {"quantization-config.targets": {r"re:.*\.shared_experts\..*": "fp8_per_block"}},
    "plan-again": {},
}


@pytest.mark.parametrize("gpus", [1, 2])
def test_each_variant_changes_one_setting_of_the_plan(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    assert [one["name"] for one in variants.read(FILE, gpus)] == list(CHANGES)
    plan = settings(monkeypatch, FILE, "plan", gpus)
    for name, change in CHANGES.items():
        assert changes(plan, settings(monkeypatch, FILE, name, gpus)) == change, name


def test_a_graph_is_captured_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    [variant] = variants.read(FILE, 2, ["plan"])
    steps = {2 * batch for batch in variant["batches"]}
    assert steps <= set(settings(monkeypatch, FILE, "plan", 2)["cudagraph-capture-sizes"])


def test_only_shared_experts_are_quantized() -> None:
    [variant] = variants.read(FILE, 2, ["fp8-shared"])
    [target] = json.loads(variant["flags"][-1])["targets"]
    pattern = re.compile(target.removeprefix("re:"))
    shared = [
        "model.layers.42.ffn.shared_experts.gate_up_proj",
        "model.layers.43.mtp_block.ffn.shared_experts.down_proj",
    ]
    others = [
        "model.layers.0.ffn.experts.routed_experts",
        "model.layers.4.attn.wo_a",
        "lm_head",
        "model.layers.0.ffn.gate",
    ]
    assert [name for name in [*shared, *others] if pattern.match(name)] == shared


def source(name: str) -> str:
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    found = Path(spec.origin).parent / name
    files = sorted(found.rglob("*.py")) if found.is_dir() else [found]
    return "\n".join(file.read_text() for file in files)


def test_no_pass_of_the_compiler_can_act_on_the_cuda_model() -> None:
    """Breakable graphs turn compilation off for it, and no part of it is marked as one to compile."""
    assert "support_torch_compile" not in source("models/deepseek_v4/nvidia")
    assert "support_torch_compile" in source("models/deepseek_v4/cpu")
    config = source("config/vllm.py")
    architectures = config.partition("DEFAULT_BREAKABLE_CUDAGRAPH_ARCHITECTURES = ")[2].partition(")")[0]
    assert {"DeepseekV4ForCausalLM", "DeepSeekV4MTPModel"} <= set(re.findall(r'"(\w+)"', architectures))
    assert "if enabled:\n            self.compilation_config.mode = CompilationMode.NONE" in config


def test_whole_graphs_leave_prompts_without_graphs() -> None:
    """On SM 9.0 the indexer has graphs of requests with equally many tokens alone, and no part of the model is split."""
    config = source("config/compilation.py")
    assert "FULL_DECODE_ONLY = (FULL, NONE)" in config
    assert (
        "if self.mode != CompilationMode.VLLM_COMPILE:\n            if self.splitting_ops is None:\n"
        "                self.splitting_ops = []"
    ) in config  # as with breakable graphs
    _, rule, after = config.partition(
        "mixed_mode() == CUDAGraphMode.FULL\n            and min_cg_support != AttentionCGSupport.ALWAYS"
    )
    whole = after.partition("logger.warning(msg)")[0]
    assert rule
    assert "if self.splitting_ops_contain_attention():" in whole
    lines = [line.strip() for line in whole.splitlines() if line.strip()]
    assert lines[-3:] == [
        "else:", 'msg += "; setting cudagraph_mode=FULL_DECODE_ONLY"', "cudagraph_mode = CUDAGraphMode.FULL_DECODE_ONLY",
    ]  # fmt: skip
    indexer = source("v1/attention/backends/mla/indexer.py")
    assert (
        "if _supports_varlen_paged_mqa_logits() or _use_flattening(vllm_config):\n"
        "            return AttentionCGSupport.ALWAYS\n        return AttentionCGSupport.UNIFORM_BATCH"
    ) in indexer
    varlen = indexer.partition("def _supports_varlen_paged_mqa_logits")[2].partition("\ndef ")[0]
    assert re.findall(r"family\((\d+)\)", varlen) == ["100"]
    rows = source("utils/deep_gemm.py").partition("def native_next_n_supported")[2].partition("\ndef ")[0]
    assert "is_device_capability_family(90):\n        return next_n in (1, 2, 4)" in rows  # one draft token: 2


def test_interactivity_only_chooses_sizes_of_graphs_where_none_are_given() -> None:
    found = re.findall(r'performance_mode [=!]= "\w+"', source("."))
    assert sorted(found) == [
        'performance_mode != "balanced"', 'performance_mode == "interactivity"', 'performance_mode == "throughput"',
    ]  # fmt: skip
    sizes = source("config/vllm.py").partition("if self.compilation_config.cudagraph_capture_sizes is not None:")[2]
    assert 'else:\n                if self.performance_mode == "interactivity"' in sizes


def test_the_cuda_draft_head_has_no_local_argmax() -> None:
    assert "get_top_tokens" not in source("models/deepseek_v4/nvidia")
    assert "get_top_tokens" in source("models/deepseek_v4/amd")
