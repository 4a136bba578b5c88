"""The tables of refusals.md: combinations that are refused, from the shipped profile files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dsv4_serve.entrypoint.catalog.catalog import Catalog, ProfileFile
from dsv4_serve.entrypoint.catalog.schema import Constraint
from tools.reference.markdown import code, linked, prose, table

VLLM = "https://github.com/vllm-project/vllm"
_SOURCE = f"{VLLM}/blob/v0.32.0/vllm"


@dataclass(frozen=True)
class Refusal:
    """What a user would see without it, a link, and the known failures that it covers."""

    symptom: str
    link: str
    failures: tuple[int, ...] = ()


RULES = {
    "tool-strict-parameter": Refusal(
        "Calls in which the grammar forced other arguments than the model wrote",
        f"{_SOURCE}/tool_parsers/tool_strict_level.py",
    ),
    "no-deep-gemm": Refusal(
        "fp8 einsum weight rows must be divisible by out_rank=1024, got 256", f"{VLLM}/pull/43722", (23,)
    ),
    "graph-memory": Refusal(
        "torch.OutOfMemoryError while CUDA graphs are captured", f"{_SOURCE}/v1/worker/gpu_worker.py", (41,)
    ),
    "graph-sizes": Refusal(
        "No valid cudagraph sizes after rounding to multiple of 2", f"{_SOURCE}/config/compilation.py", (30,)
    ),
    "w4a16-marlin-sm120": Refusal(
        "Tokens of other scripts in the answers at concurrency 2 and more, then an illegal memory access",
        f"{VLLM}/pull/43730",
        (28,),
    ),
    "log-config": Refusal("The end of vLLM without a root cause", f"{_SOURCE}/logger.py"),
    "log-off": Refusal("A start without phases, and errors without the process they come from", f"{_SOURCE}/logger.py"),
    "log-level": Refusal("The end of vLLM without a root cause", f"{_SOURCE}/logger.py"),
    "log-stream": Refusal("The end of vLLM without a root cause", f"{_SOURCE}/logger.py"),
    "no-http": Refusal("A start that never becomes ready", f"{_SOURCE}/entrypoints/launchers/cli_args.py"),
    "rust-frontend": Refusal("Routes that answer without the API key", f"{_SOURCE}/v1/utils.py"),
    "no-metrics": Refusal(
        "A hung engine that nobody notices, and a stop that cuts requests unseen", f"{_SOURCE}/v1/metrics/loggers.py"
    ),
    "traces-endpoint": Refusal(
        "collect_detailed_traces requires `--otlp-traces-endpoint` to be set", f"{_SOURCE}/config/observability.py"
    ),
    "expandable-segments": Refusal(
        "Failed: Cuda error custom_all_reduce.cuh:455 'invalid argument'", f"{_SOURCE}/config/vllm.py"
    ),
    "expandable-segments-with-kv-connector": Refusal(
        "KV connector NixlConnector is incompatible with PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True",
        f"{_SOURCE}/config/vllm.py",
    ),
    "offloading-in-shared-memory": Refusal("A host that stops answering", f"{VLLM}/issues/46307"),
    "pro-hardware": Refusal(
        "A MoE backend that the GPUs lack", "https://huggingface.co/canada-quant/DeepSeek-V4-Pro-NVFP4-FP8-MTP"
    ),
}
_KERNELS = "vLLM itself: `entrypoint/vllm_schema/combinations-0.32.0.json`"
SCOPE = {
    "model-files": (
        "the files that `--model NAME=WHERE` names are of another architecture or scheme, damaged, or not there",
        "a server with the wrong name, flags and memory, or an end while weights are loaded",
        "write `--model WHERE`, and the files decide; correct the path; fetch the original config.json",
        "the checkpoint's files",
    ),
    "drafter-method": (
        "`speculative-config.method` asks for `mtp` or `dspark`, and the checkpoint has another drafter, or none",
        "vLLM ends, or it builds a drafter out of tensors that are not there",
        "leave the method out, set it to the drafter's, or set NUM_SPECULATIVE_TOKENS=0",
        "the checkpoint's files, else `drafter` of the model",
    ),
    "dspark-block": (
        "more draft tokens than the block of a DSpark drafter",
        "drafts that are hardly accepted: 4 % at 7, 35 % at 5 (2 x GB10, a fork of vLLM, 2026-08-01, vllm#41834)",
        "set NUM_SPECULATIVE_TOKENS to the block or less",
        "`dspark_block_size` in config.json, else `drafter` of the model",
    ),
    "mtp-depth": (
        "more draft tokens than 3, or than the MTP layers of the checkpoint",
        "an MTP layer drafts one token; vLLM 0.32.0 runs it again on its own guesses, with fewer accepted each time",
        "set NUM_SPECULATIVE_TOKENS=3 or fewer",
        "`config/speculative.py`; the most that was published is 3 (vllm-project/recipes#493, 2026-05-28)",
    ),
    "k-by-load": (
        "`num_speculative_tokens_per_batch_size` is not valid, gives one request none, more than k, or meets DP",
        "vLLM ends after the weights are loaded, drafts fewer than asked, or ignores the schedule with a warning",
        "correct the ranges as the message says, or serve one replica for each rank",
        "flags",
    ),
    "profile-model": (
        "the profile's `models` do not have the model",
        "the profile was tuned for others",
        "choose a model that the message lists, with --model",
        "`models` of a profile",
    ),
    "profile-hardware": (
        "the profile's `hardware` does not have this hardware",
        "the profile was tuned for other hardware",
        "choose another --profile",
        "`hardware` of a profile",
    ),
    "tensor-parallel-size": (
        "`tensor-parallel-sizes` of the profile or the model do not have the size",
        "attention kernels do not have every number of heads a GPU: no decode kernel for this shape",
        "choose a size that the message lists, with --tp",
        "`tensor-parallel-sizes` of a profile or a model",
    ),
    "gpu-count": (
        "the plan needs more GPUs than this process sees",
        "vLLM gives each rank a GPU of its own",
        "lower --tp",
        "the host",
    ),
    "nodes": (
        "a node cannot join: a wrong number, role or address, or GPUs that the nodes cannot share evenly",
        "vLLM ends the start, or the nodes wait for each other",
        "set --nnodes, --node-rank, --master-addr and --headless as the message says",
        "`config/parallel.py`, `engine/arg_utils.py`",
    ),
    "expert-slices": (
        "data parallelism without expert parallelism, and a number of GPUs that does not divide an expert's rows",
        "`assert self.intermediate_size % tp_size == 0`, while the model is built",
        "--enable-expert-parallel distributes whole experts",
        "`model_executor/layers/fused_moe/config.py`",
    ),
    "context-parallel": (
        "--decode-context-parallel-size or --prefill-context-parallel-size with a DeepSeek-V4 model",
        "vLLM 0.32.0 divides full attention only, and the cache of DeepSeek-V4 has sliding windows; the engine ends",
        "leave it out; --data-parallel-size gives each rank a KV cache of its own",
        "`v1/core/kv_cache_coordinator.py`, `v1/core/single_type_kv_cache_manager.py`",
    ),
    "quantization": (
        "`quantization`, or the drafter's, is not the method of the files; DeepSeek's own accept any: vLLM replaces it",
        "`Quantization method specified in the model config (compressed-tensors) does not match`",
        "leave --quantization out",
        _KERNELS,
    ),
    "kv-offloading": (
        "no `kv_role` or size; tiers lack a known `spec_name`, type or `root_dir`; `VLLM_USE_SIMPLE_KV_OFFLOAD=1`",
        "`Please specify kv_role`; `Unsupported spec type`; `Unknown secondary tier type`; or vLLM ignores the tiers",
        "what the message says",
        "`config/kv_transfer.py`, `v1/kv_offload/`",
    ),
    "weight-cache": (
        "`load-format` is `ipc_cache`, and the files are compressed-tensors, or FP4 experts without TRTLLM's kernels",
        "`does not support loading from pre-processed weights`; `pre-processed weights require FLASHINFER_TRTLLM`",
        "leave load-format out",
        "`model_executor/model_loader/weight_cache/`",
    ),
    "draft-dspark-fields": (
        "a `dspark_*` field of config.json is out of range: the block size, noise token, Markov rank or target layers",
        "vLLM ends while it builds the drafter, or drafts from the wrong layers",
        "fetch the original config.json, or set NUM_SPECULATIVE_TOKENS=0",
        "`models/deepseek_v4/nvidia/dspark.py`",
    ),
    "moe-backend": (
        "vLLM has no kernel of `moe-backend` for the model's experts, on this GPU or with this expert parallelism",
        "`does not support the deployment configuration`, or `KeyError: 'layers.0.ffn.experts.w13_input_scale'`",
        "set a backend that the message lists",
        _KERNELS,
    ),
    "draft-moe-backend": (
        "the same for the drafter's experts; without `speculative-config.moe_backend` they take `moe-backend`",
        "`moe_backend='marlin' is not supported for unquantized MoE`, after the target model is loaded",
        "set `speculative-config.moe_backend` to one that the message lists",
        _KERNELS,
    ),
    "attention-backend": (
        "`attention-backend` is not one of DeepSeek-V4's, or does not run on this GPU",
        "`is not a DeepSeek V4 attention backend`, or an end in the first step",
        "set a backend that the message lists",
        _KERNELS,
    ),
    "kv-cache-dtype": (
        "the attention backend does not store this format on this GPU",
        "`DeepseekV4 fp8_ds_mla layout only supports fp8 kv-cache`",
        "set --kv-cache-dtype fp8",
        _KERNELS,
    ),
    "block-size": (
        "`block-size` is no multiple of the attention's block of 256 tokens",
        "`No common block size`, after the weights are loaded",
        "set --block-size 256",
        _KERNELS,
    ),
    "indexer-kv-dtype": (
        "`attention-config.indexer_kv_dtype` is none of the indexer's formats on this GPU; `mxfp4` is for SM 10.x",
        "`indexer_kv_dtype='mxfp4' requires Blackwell datacenter GPUs`",
        "set it to fp8",
        _KERNELS,
    ),
    "sparse-indexer-topk-backend": (
        "the indexer has no such kernel on this GPU: `deep_select` runs on SM 10.x only, `cooperative` not on 12.x",
        "`sparse_indexer_topk_backend='deep_select' was requested, but`, in the first step",
        "set --sparse-indexer-topk-backend auto",
        _KERNELS,
    ),
    "linear-backend": (
        "`linear-backend` has no FP8 kernel for this GPU, or one that stores wo_a as DeepGEMM cannot read it",
        "`Failed to find a kernel`; `fp8 einsum weight rows must be divisible`; `Assertion error (…/layout.hpp:46)`",
        "set --linear-backend auto",
        _KERNELS,
    ),
    "max-model-len": (
        "`max-model-len` is larger than the model's 1,048,576 positions",
        "`User-specified max_model_len is greater than the derived max_model_len`",
        "set it to 1048576 or less; VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 lifts it",
        "`config/model.py`",
    ),
    "weights": (
        "the weights leave no memory for the KV cache",
        "vLLM ends out of memory",
        "raise --tp, or choose a smaller --model",
        "`weights-gib` of the model, `memory-gib` of the hardware",
    ),
    "kv-cache": (
        "one request of full length does not fit the KV cache",
        "vLLM ends after it has loaded everything",
        "lower --max-model-len to the value in the message, raise --tp, or choose a smaller --model",
        "the same, and the context",
    ),
}
"""When, because, instead, and what sets it, by name: what a plan is refused for besides the rules of the files."""
SCOPE_FAILURES = {"linear-backend": (7, 23), "moe-backend": (20, 22)}
"""Numbers in the list of known failures."""
READING = {
    "a flag given twice": Refusal(
        "Of two --served-model-name only the last is served", f"{_SOURCE}/entrypoints/launchers/cli_args.py", (45,)
    ),
    "a word that is no flag": Refusal("unrecognized arguments: serve", f"{VLLM}/blob/v0.32.0/docker/Dockerfile", (50,)),
}
"""Mistakes that are answered before there is a plan; they cannot be skipped."""


def tables() -> dict[str, str]:
    """Return what profile files refuse, what is outside their scope, and what is refused while arguments are read."""
    refused = (
        (
            code(rule.name),
            when(file, rule),
            prose(rule.because),
            prose(rule.instead),
            code(f"profiles/{file}"),
            symptom(rule),
        )
        for file, rule in rules()
    )
    scope = ((code(name), *map(prose, texts)) for name, texts in SCOPE.items())
    read = ((name, linked(refusal.symptom, refusal.link)) for name, refusal in READING.items())
    return {
        "profile files": table(("name", "when", "because", "instead", "file", "what happens without it"), refused),
        "scope": table(("name", "when", "because", "instead", "set by"), scope),
        "reading": table(("what", "what happens without it"), read),
    }


def rules() -> Iterator[tuple[str, Constraint]]:
    """Yield every rule of the shipped profile files, with its file."""
    catalog = Catalog([])
    files: list[ProfileFile[Any]] = [catalog.root(), *catalog.every_model(), *catalog.every_architecture()]
    files += [*catalog.every_hardware(), *(catalog.profile(name, "") for name in catalog.names("profile"))]
    for file in files:
        yield from ((file.file, rule) for rule in file.own.refuse)


def when(file: str, rule: Constraint) -> str:
    """Return the conditions of a rule; each has to hold. A file's rules count for those that extend it, too."""
    kind, _, name = file.removesuffix(".toml").rpartition("/")
    parts = [f"{kind.removesuffix('s') or 'profile'} {code(name)}"] if name != "base" else []
    lists = {**rule.given(), "repository": rule.model_id, "drafter": rule.drafter}
    parts += [f"{key.replace('-', ' ')} {' or '.join(map(code, values))}" for key, values in lists.items() if values]
    parts += [code(f"--{name} {' or '.join(map(str, values))}") for name, values in _leaves(rule.flags)]
    parts += [code(f"{name}={value}") for name, value in rule.env.items()]
    parts += [f"hardware is not {' or '.join(map(code, rule.except_hardware))}"] if rule.except_hardware else []
    return ", ".join(parts)


def symptom(rule: Constraint) -> str:
    """Return what a user would see without a rule."""
    refusal = RULES[rule.name]
    return linked(refusal.symptom, refusal.link)


def _leaves(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, list[Any]]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value if isinstance(value, list) else [value]
