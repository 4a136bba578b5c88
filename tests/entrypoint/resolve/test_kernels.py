"""Flags that vLLM has no kernel for are refused, and what is proposed instead runs."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4_serve.entrypoint.errors import ConfigError, problems_of
from dsv4_serve.entrypoint.resolve.constraints import MEMORY
from dsv4_serve.entrypoint.vllm_schema import schema
from tests.support.each import each
from tests.support.examples import examples
from tests.support.plans import CATALOG, request, resolved

ADVICE = re.compile(r"^(?:set|choose) ")
UNSET = re.compile(
    r"environment.*? (VLLM_\w+)(?:; correct or unset it| does not exist .* Leave it out)|leave (VLLM_\w+) unset"
)
GPUS = [file.name for file in CATALOG.every_hardware() if file.get("compute_capability")]
MODELS = ["acti", "w4a16", "nvfp4", "flash", "flash-nvfp4", "flash-0731", "flash-0731-nvfp4", "flash-base"]
ROUNDS, MOST = 2, 6
V41 = {"profile": "v41", "model": "v41-flash", "tensor_parallel_size": 4}


def problems(**requested: Any) -> list[str]:
    try:
        resolved(request(**{"profile": "64k", "skip": tuple(MEMORY), **requested}))
    except ConfigError as error:
        return list(problems_of(error))
    return []


def fixes(problem: str) -> list[tuple[str, Any]]:
    """Every flag and value that a problem proposes, in its order."""
    advice = problem.partition(" To override this")[0].rpartition("; ")[2].rstrip(".")
    if variable := UNSET.search(problem):
        return [("unset", variable[1] or variable[2])]
    found, flag = [], ""
    for part in re.split(r",? or |, ", ADVICE.sub("", advice)):
        words = part.split()
        if words[0].startswith("--"):
            flag, *words = words
        assert flag, problem
        assert len(words) < 2, problem
        name = flag.removeprefix("--")
        value = words[0] if words else True
        found.append((name if "." in name else name.replace("-", "_"), int(value) if str(value).isdigit() else value))
    return found


def followed(requested: dict[str, Any], *chosen: tuple[str, Any]) -> dict[str, Any]:
    """The request after some fixes."""
    unset = {value for name, value in chosen if name == "unset"}
    kept = {name: value for name, value in requested.get("operator", {}).items() if name not in unset}
    return requested | {name: value for name, value in chosen if name != "unset"} | {"operator": kept}


@pytest.mark.parametrize(
    ("requested", "says"),
    [
        ({"hardware": "h200", "model": "w4a16", "moe_backend": "flashinfer_trtllm"}, "do not run on SM 9.0; set"),
        ({"hardware": "b200", "model": "w4a16", "moe_backend": "flashinfer_trtllm"}, "no kernel for the model's INT4"),
        ({"hardware": "rtx-pro-6000", "model": "nvfp4", "moe_backend": "B12X"}, "in a package that the image does not hold"),
        ({"hardware": "h200", "model": "nvfp4", "moe_backend": "flashinfer-b12x"}, "SwiGLU clamp"),
        ({"hardware": "b200", "model": "flash", "moe_backend": "deep_gemm_mega_moe"}, "without expert parallelism"),
        ({"hardware": "h200", "model": "nvfp4", "kernel-config.moe_backend": "b12x"}, "--kernel-config.moe_backend auto"),
        ({"hardware": "h200", "model": "w4a16", "speculative-config.moe_backend": "marlin"}, "drafter's BF16 experts"),
        ({"hardware": "rtx-pro-6000", "model": "flash-0731-nvfp4", "moe_backend": "cutlass"}, "drafter's MXFP4 experts"),
        ({"hardware": "h200", "model": "flash", "linear_backend": "humming"}, "DeepGEMM kernel cannot read"),
        ({"hardware": "gb10", "model": "flash", "attention_backend": "FLASHMLA_SPARSE"}, "do not run on SM 12.1"),
        ({"hardware": "h200", "model": "flash", "kv_cache_dtype": "nvfp4_ds_mla"}, "no nvfp4_ds_mla cache on SM 9.0"),
        ({"hardware": "b300", "model": "flash", "kv_cache_dtype": "bfloat16"}, "or --attention-backend FLASHINFER"),
        ({"hardware": "h200", "model": "flash", "block_size": 64}, "blocks of 256; set --block-size 256"),
        ({"hardware": "gb10", "model": "flash", "attention-config.indexer_kv_dtype": "mxfp4"}, "no mxfp4 cache on SM 12.1"),
        ({"hardware": "h200", "profile": "v41", "model": "v41-flash", "tensor_parallel_size": 4,
          "attention-config.indexer_kv_dtype": "mxfp4"}, "the indexer has no mxfp4 cache on SM 9.0"),
        ({"hardware": "gb10", "model": "flash", "sparse_indexer_topk_backend": "cooperative"}, "no cooperative kernel"),
        ({"hardware": "h200", "attention_backend": "FLASHMLA_MEGA_ATTN_DSV41"} | V41, "do not run on SM 9.0; set"),
        ({"hardware": "b300", "kv_cache_dtype": "bfloat16"} | V41, "or --attention-backend FLASHINFER_MLA_SPARSE_DSV4"),
        ({"hardware": "gb10", "kv_cache_dtype": "nvfp4_ds_mla"} | V41, "has no nvfp4_ds_mla cache on SM 12.1"),
        ({"hardware": "h200", "moe_backend": "flashinfer_trtllm"} | V41, "do not run on SM 9.0; set --moe-backend auto"),
        ({"hardware": "h200", "model": "flash", "kernel-config.sparse_indexer_topk_backend": "deep_select"},
         "set --kernel-config.sparse_indexer_topk_backend auto"),
        ({"hardware": "rtx-pro-6000", "model": "w4a16", "moe_backend": "auto"}, "Marlin, auto's choice for INT4"),
    ],
)  # fmt: skip
def test_what_vllm_has_no_kernel_for_is_refused_with_the_reason(requested: dict[str, Any], says: str) -> None:
    found = problems(**requested)
    assert len(found) == 1
    assert says in found[0]


@pytest.mark.parametrize(
    "requested",
    [
        {"hardware": "b200", "model": "flash", "moe_backend": "deep_gemm_mega_moe", "enable_expert_parallel": True},
        {"hardware": "b200", "model": "flash", "attention-config.indexer_kv_dtype": "mxfp4"},
        {"hardware": "b200", "model": "flash", "attention_backend": "FLASHINFER_MLA_SPARSE_DSV4",
         "kv_cache_dtype": "bfloat16"},
        {"hardware": "rtx-pro-6000", "model": "flash-0731-nvfp4", "moe_backend": "cutlass",
         "speculative-config.moe_backend": "auto"},
        {"hardware": "rtx-pro-6000", "model": "flash-nvfp4", "moe_backend": "cutlass",
         "speculative-config.num_speculative_tokens": 0},
        {"hardware": "h200", "model": "w4a16", "moe_backend": "marlin"},
        {"hardware": "h200", "model": "flash", "block_size": 512},
        {"hardware": "h200", "model": "flash", "linear_backend": "deep_gemm"},
        {"hardware": "cpu", "profile": "demo-v4", "model": "demo-v4=/models/demo-v4", "block_size": 16},
        {"hardware": "h200", "block_size": 128} | V41,
        {"hardware": "b300", "kv_cache_dtype": "nvfp4_ds_mla"} | V41,
        {"hardware": "b300", "kv_cache_dtype": "bfloat16", "attention_backend": "FLASHINFER_MLA_SPARSE_DSV41"} | V41,
    ],
)  # fmt: skip
def test_what_vllm_has_a_kernel_for_is_not_refused(requested: dict[str, Any]) -> None:
    assert problems(**requested) == []


def test_expert_parallelism_is_proposed_where_several_gpus_can_share_the_experts() -> None:
    mega = {"hardware": "b300", "model": "flash", "moe_backend": "deep_gemm_mega_moe"}
    assert "set --enable-expert-parallel, or --moe-backend auto" in problems(**mega)[0]
    one = problems(**mega, tensor_parallel_size=1, skip=("tensor-parallel-size", *MEMORY))[0]
    assert "--enable-expert-parallel" not in one


def test_a_constraint_is_skipped_by_name() -> None:
    assert problems(hardware="h200", model="w4a16", moe_backend="b12x", skip=("moe-backend", *MEMORY)) == []


def values(flag: str) -> st.SearchStrategy[Any]:
    return st.sampled_from(schema.flag_kind(flag)["choices"])


REQUESTS = st.fixed_dictionaries(
    {"hardware": st.sampled_from(GPUS), "model": st.sampled_from(MODELS), "tensor_parallel_size": st.sampled_from([2, 4])},
    optional={
        "moe_backend": values("moe-backend"),
        "linear_backend": values("linear-backend"),
        "attention_backend": values("attention-backend"),
        "kv_cache_dtype": values("kv-cache-dtype"),
        "sparse_indexer_topk_backend": values("sparse-indexer-topk-backend"),
        "block_size": st.sampled_from([1, 16, 64, 128, 256, 512]),
        "attention-config.indexer_kv_dtype": st.sampled_from(["auto", "bf16", "fp8", "mxfp4", "nvfp4"]),
        "speculative-config.moe_backend": values("moe-backend"),
        "enable_expert_parallel": st.booleans(),
        "operator": st.dictionaries(
            st.sampled_from(["VLLM_USE_DEEP_GEMM", "VLLM_CONFIGURE_LOGGING", "VLLM_OF_A_FORK", "VLLM_USE_B12X_MOE"]),
            st.just("0"),
        ),
    },
)  # fmt: skip


@given(REQUESTS, st.data())
@settings(max_examples=examples(80), deadline=None)
def test_all_printed_fixes_at_once_lead_to_a_plan_within_two_rounds(requested: dict[str, Any], data: Any) -> None:
    """Whichever of the proposed values are taken; `--model` of a rule's advice leads elsewhere and is not followed."""
    for _ in range(ROUNDS):
        if not (found := problems(**requested)):
            return
        named = [[fix for fix in fixes(problem) if fix[0] != "model"] for problem in found]
        requested = followed(requested, *(data.draw(st.sampled_from(options)) for options in named))
    assert problems(**requested) == []


@given(REQUESTS, st.data())
@settings(max_examples=examples(40), deadline=None)
def test_no_circle_of_advice_when_one_fix_is_followed_at_a_time(requested: dict[str, Any], data: Any) -> None:
    seen = [requested]
    for _ in range(MOST + len(problems(**requested))):
        if not (found := problems(**requested)):
            return
        requested = followed(requested, data.draw(st.sampled_from(fixes(found[0]))))
        assert requested not in seen
        seen.append(requested)
    assert problems(**requested) == []


@each("hardware, model", itertools.product(GPUS, MODELS))
def test_what_the_profiles_set_themselves_runs(hardware: str, model: str) -> None:
    assert problems(hardware=hardware, model=model) == []


def test_every_proposed_backend_runs() -> None:
    wanted = {"hardware": "rtx-pro-6000", "model": "w4a16", "moe_backend": "cutlass"}
    advice = problems(**wanted)[0].partition("set --moe-backend ")[2].partition(". To")[0]
    named = re.split(r", | or ", advice)
    assert named == ["humming", "triton"]
    for name in named:
        assert problems(**wanted | {"moe_backend": name}) == []
