"""Why vLLM ended: on logs of real failures (vLLM 0.32.0; H200 and CPU, 2026-11-22), and line by line for what needs a GPU."""

from __future__ import annotations

import itertools
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.vllm_log import exit_cause, known_failures
from dsv4_serve.entrypoint.vllm_log.exit_cause import ExitReason, classify, explain
from dsv4_serve.entrypoint.vllm_log.parser import LogLine
from dsv4_serve.entrypoint.vllm_log.root_cause import BURST, KEPT, LogNotes
from dsv4_serve.entrypoint.vllm_log.situation import Situation
from tests.support.each import each
from tests.support.vllm_logs import lines_of

TRACEBACK = ["Traceback (most recent call last):", '  File "x.py", line 1, in f', "    f()"]


def logged(process: str, headline: str, error: str, level: str = "ERROR") -> list[str]:
    """A traceback as vLLM logs it."""
    return [f"({process} pid=7) {level} 11-22 04:11:57 [x.py:1] {line}" for line in (headline, *TRACEBACK, error)]


def died(error: str, headline: str = "EngineCore encountered a fatal error.") -> list[str]:
    echo = "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above)"
    return logged("EngineCore", headline, error) + logged("APIServer", "AsyncLLM output_handler failed.", echo)


def notes_on(lines: list[str]) -> LogNotes:
    notes = LogNotes()
    for line in lines:
        notes.feed(LogLine.parse(line))
    return notes


def reason(lines: list[str], status: int = 1, phase: str = "loading weights", was_ready: bool = False) -> ExitReason:
    return classify(notes_on(lines), status, phase=phase, was_ready=was_ready)


@pytest.mark.parametrize(
    ("name", "status", "failure", "expected", "root"),
    [
        ("h200-draft-head-unpatched", 1, "draft-head-built-quantized", 87, "KeyError: 'model.layers.5.mtp_block."),
        ("h200-compressor-unpatched", 1, "compressor-stored-in-fp8", 87, "KeyError: 'layers.2.attn.compressor."),
        ("h200-experts-unpatched", 1, "experts-not-matched", 87, "KeyError: 'layers.0.ffn.experts.routed_experts."),
        ("h200-draft-head-holed", 1, "draft-head-incomplete", 78, "ValueError: MTP speculative decoding: draft head"),
        ("h200-draft-head-removed", 1, "draft-head-lost", 78, "ValueError: MTP speculative decoding layer 5"),
        ("h200-moe-backend", 1, "no-moe-backend", 78, "ValueError: NvFp4 MoE backend 'FLASHINFER_TRTLLM'"),
        ("h200-linear-backend", 1, "linear-backend-without-output-projection", 78, "RuntimeError: Assertion error"),
        ("cpu-no-folder", 1, "no-such-model", 78, "huggingface_hub.errors.HFValidationError: Repo id"),
        ("cpu-port-held", 1, "port-held", 69, "OSError: [Errno 98] Address already in use"),
        ("cpu-truncated-shard", 1, "shard-broken", 87, "safetensors._safetensors_rust.SafetensorError: Error"),
        ("cpu-max-model-len", 1, "wrong-value", 78, "pydantic_core._pydantic_core.ValidationError: 1 validation"),
        ("cpu-disk-full", 1, "disk-full", 69, "OSError: [Errno 28] No space left on device"),
        ("cpu-shm-read-only", 1, "shared-memory-not-writable", 69, "OSError: [Errno 30] Read-only file system: '/psm_"),
        ("cpu-small-kv", 1, "kv-cache-too-small", 78, "ValueError: To serve at least one request with the model"),
        ("cpu-free-memory", 1, "memory-in-use", 80, "ValueError: Available memory on node 0"),
        ("cpu-unrecognized", 2, "wrong-argument", 78, "vllm: error: unrecognized arguments: --no-such-flag"),
        ("cpu-unknown-tensor", 1, "tensor-unknown", 87, "ValueError: There is no module or parameter named"),
        ("cpu-worker-killed-at-load", 1, "process-gone", 87, "RuntimeError: Engine core initialization failed."),
        ("cpu-engine-killed-at-load", 1, "process-gone", 87, "RuntimeError: Engine core initialization failed."),
    ],
)
def test_a_start_that_really_failed_has_its_cause_and_its_root(
    name: str, status: int, failure: str, expected: int, root: str
) -> None:
    found = reason(lines_of(name), status)
    assert (found.failure, found.cause.exit_status) == (failure, expected)
    assert found.root.startswith(root)


@pytest.mark.parametrize("name", ["cpu-engine-killed", "cpu-worker-killed"])
def test_a_process_that_is_killed_while_serving_is_named_although_vllm_ends_with_status_0(name: str) -> None:
    found = reason(lines_of(name), 0, phase="ready", was_ready=True)
    assert (found.failure, found.cause) == ("process-gone", exit_cause.ENGINE_DIED)
    assert "OOMKilled" in found.sentence


@pytest.mark.parametrize("name", ["cpu-serve", "h200-tp2-stopped"])
def test_a_server_that_was_stopped_in_order_has_no_root(name: str) -> None:
    """Although a stopped API server may log that its engine is dead."""
    found = reason(lines_of(name), 0, phase="ready", was_ready=True)
    assert (found.cause, found.root) == (exit_cause.DRAINED, "")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cpu-max-model-len", "User-specified max_model_len (99999999)"),
        ("cpu-bad-utilization", "CacheConfig gpu_memory_utilization Input should be less than or equal to 1"),
    ],
)
def test_what_pydantic_found_wrong_is_in_the_root(name: str, words: str) -> None:
    assert words in reason(lines_of(name)).root


def test_a_port_in_use_is_named() -> None:
    assert "Port 18640 is in use by another process" in reason(lines_of("cpu-port-held")).sentence


EXAMPLES = {
    "draft-head-lost": "ValueError: MTP speculative decoding layer 43 weights missing from checkpoint. The checkpoint may",
    "draft-head-incomplete": "ValueError: MTP speculative decoding: draft head weights were not initialized from",
    "draft-head-built-quantized": "KeyError: 'model.layers.61.e_proj.weight_scale_inv'",
    "draft-tokens-not-a-multiple": "ValueError: num_speculative_tokens:7 must be divisible by n_predict=5",
    "draft-tokens-too-many-for-deepgemm": "RuntimeError: Assertion error (smxx.hpp:233): next_n == 1 or next_n == 2 or next_n == 4",
    "draft-experts-on-triton": "ValueError: moe_backend='triton' is not supported for NvFP4 MoE. Expected one of",
    "compressor-stored-in-fp8": "KeyError: 'layers.10.attn.mla_attn.compressor.fused_wkv_wgate.weight_scale'",
    "mega-moe-without-mxfp4": "KeyError: 'layers.0.ffn.experts.w13_input_scale'",
    "experts-not-matched": "KeyError: 'layers.0.ffn.experts.routed_experts.w13_weight_packed'",
    "attention-scales-renamed": "KeyError: 'layers.0.attn.fused_wqa_wkv.weight_scale_inv'",
    "tensor-unknown": "KeyError: 'layers.3.ffn.gate.e_score_correction_bias'",
    "tensors-missing": "ValueError: Following weights were not initialized from checkpoint: {'lm_head.weight'}",
    "block-scales-expected": "AttributeError: 'ColumnParallelLinear' object has no attribute 'weight_scale_inv'",
    "static-scheme-asserted": "AssertionError: assert self.is_static_input_scheme is False",
    "global-scale-shape": "RuntimeError: output with shape [] doesn't match the broadcast shape [1]",
    "marlin-repacks-block-fp8": "RuntimeError: b_scales dim 1 = 32 is not size_n = 1536",
    "marlin-has-no-kernel": "RuntimeError: Invalid thread config: thread_m_blocks = 1, thread_k = -1, thread_n = -1",
    "experts-pruned": "RuntimeError: Unsupported expert number: 144",
    "shard-broken": "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge",
    "no-weights": "RuntimeError: Cannot find any model weights with `/models/flash`",
    "no-such-model": "OSError: x is not a local folder and is not a valid model identifier listed on",
    "hub-refuses": "huggingface_hub.errors.GatedRepoError: 401 Client Error.",
    "hub-not-reached": "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find the requested files in the cache",
    "config-stripped": "AttributeError: 'DeepseekV4Config' object has no attribute 'compress_ratios'",
    "config-mlp-layer-types": "ValueError: The `mlp_layer_types` entries must be in ('moe') but got ['hash_moe']",
    "kv-cache-too-small": "ValueError: To serve at least one request with the model's max seq len (1048576), (5.73 GiB KV",
    "no-kv-cache": "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
    "gpu-in-use": "ValueError: Free memory on device cuda:0 (3.1/95.0 GiB) on startup is less than desired GPU memory utilization",
    "memory-in-use": "ValueError: Available memory on node 0 is less than desired CPU memory utilization (0.99",
    "gpu-memory-changed": "AssertionError: Error in memory profiling. Initial free memory 90 GiB, current free memory 92",
    "cuda-out-of-memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.00 GiB. GPU 0 has a total",
    "memory-of-the-host": "OSError: [Errno 12] Cannot allocate memory",
    "compiler-killed": "RuntimeError: Ninja build failed: nvcc error   : 'cicc' died due to signal 9 (Kill signal)",
    "hub-busy": "huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: https://h/x",
    "code-of-the-repository": "ValueError: The repository /m contains custom code which must be executed to correctly",
    "driver-of-two-releases": "RuntimeError: Error 803: system has unsupported display driver / cuda driver combination",
    "user-without-a-name": "KeyError: 'getpwuid(): uid not found: 1234'",
    "compiler-crashed": "RuntimeError: Ninja build failed: nvcc error   : 'ptxas' died due to signal 11 (Invalid memory",
    "first-node-not-reached": "torch.distributed.DistNetworkError: The client socket has failed to connect to any network",
    "compiling-process-killed": "torch._inductor.exc.InductorError: BrokenProcessPool: A process in the process pool was",
    "graph-capture-failed": "torch.AcceleratorError: CUDA error: operation not permitted when stream is capturing",
    "ranks-share-a-gpu": "RuntimeError: NCCL error: invalid usage: Duplicate GPU detected : rank 1 and rank 0 both on",
    "no-network-interface": "RuntimeError: NCCL error: unhandled system error: Bootstrap : no socket interface found",
    "rank-port-held": "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address.",
    "hub-certificate": "requests.exceptions.SSLError: (SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] x'))",
    "model-files-broken": "OSError: It looks like the config file at '/models/x/config.json' is not a valid JSON file.",
    "disk-broken": "OSError: [Errno 5] Input/output error: '/models/x/model-00001.safetensors'",
    "too-few-processes": "RuntimeError: can't start new thread",
    "port-held": "OSError: [Errno 98] Address already in use",
    "shared-memory-not-writable": "OSError: [Errno 30] Read-only file system: '/psm_c2066d30'",
    "shared-memory-full": "OSError: [Errno 28] No space left on device: '/psm_1b6c8a9e'",
    "disk-full": "OSError: [Errno 28] No space left on device: '/var/cache/vllm/torch_compile_cache/x'",
    "not-permitted": "PermissionError: [Errno 13] Permission denied: '/var/cache/vllm'",
    "too-many-files": "OSError: [Errno 24] Too many open files",
    "driver-too-old": "RuntimeError: The NVIDIA driver on your system is too old (found version 12040).",
    "fabric-not-ready": "RuntimeError: CUDA error: system not yet initialized",
    "gpu-missing": "RuntimeError: No CUDA GPUs are available",
    "gpu-busy": "RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable",
    "gpu-broken": "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered",
    "compiler-missing": "RuntimeError: Could not find nvcc and default cuda_home='/usr/local/cuda' doesn't exist",
    "ptxas-of-triton-too-old": "triton.runtime.errors.PTXASError: PTXAS error: Internal Triton PTX codegen error: ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name'",
    "library-missing": "OSError: libcudart.so.13: cannot open shared object file: No such file or directory",
    "library-of-another-release": "ImportError: /x/vllm/_C.abi3.so: undefined symbol: _ZN3c106SymInt6sym_neERKS0_",
    "package-missing": "ModuleNotFoundError: No module named 'tilelang'",
    "custom-all-reduce-broken": "RuntimeError: Failed: Cuda error /workspace/csrc/custom_all_reduce.cuh:455 'invalid argument'",
    "ranks-wait-for-each-other": "TimeoutError: RPC call to sample_tokens timed out.",
    "rank-lost": "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer"
    " [10.231.0.2]:37099. This is typically caused by a remote worker crash.",
    "nccl": "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)",
    "cuda-graph-sizes": "ValueError: No valid cudagraph sizes after rounding to multiple of 2 (num_speculative_tokens + 1)",
    "linear-backend-without-output-projection": (
        "RuntimeError: Assertion error (csrc/apis/../jit_kernels/impls/../heuristics/../../utils/layout.hpp:46): t.dim() == N"
    ),
    "no-moe-backend": "NotImplementedError: No NvFp4 MoE backend supports the deployment configuration.",
    "requantized-layer": "NotImplementedError: The quantization method <class 'vllm.model_executor.layers.quantization.fp8."
    "Fp8LinearMethod'> does not implement dequantize_weight. Please open an issue.",
    "no-sparse-decode-kernel": "ValueError: SM120 sparse-MLA has no decode kernel for this shape: heads=4 topk=512",
    "flashinfer-sampler": "RuntimeError: FlashInfer requires GPUs with sm75 or higher",
    "workspace-locked": "AssertionError: Workspace is locked but allocation from 'attention.py:1457' requires 21.80 MB",
    "index-out-of-bounds": 'torch.AcceleratorError: CUDA error: device-side assert triggered: x.cu:1: Assertion `i < n && "index out of bounds"` failed.',
    "device-side-assert": "torch.AcceleratorError: CUDA error: device-side assert triggered: x.cu:1: Assertion `i < n` failed.",
    "header-or-library-missing": "RuntimeError: Ninja build failed: x.cu:1:10: fatal error: curand.h: No such file or directory",
    "compiler-too-old": "RuntimeError: nvcc fatal   : Unsupported gpu architecture 'compute_121a'",
    "mega-moe-needs-sm100": "NotImplementedError: DeepGEMM MegaMoE requires SM100 GPUs.",
    "fp4-indexer-needs-sm100": "ValueError: use_fp4_indexer_cache requires Blackwell datacenter GPUs (sm_10x)",
    "deep-gemm-scale-layout": "RuntimeError: Assertion error (csrc/apis/layout.hpp:60): Unknown SF transformation",
    "deep-gemm-kernel-rejected": "RuntimeError: CUDA driver error (csrc/jit/handle.hpp:141): 200 (CUDA_ERROR_INVALID_IMAGE)",
    "sparse-mla-dispatch": "tvm.error.InternalError: Check failed: n > 64: Decode (num_tokens <= 64) must go through x",
    "partition-not-divisible": "ValueError: Weight input_size_per_partition = 96 is not divisible by weight quantization block_k",
    "offloading-does-not-fit": "RuntimeError: Insufficient space in /dev/shm for CPU KV offload shared region in /dev/shm: 65536 MiB",
    "offload-block-size": "AssertionError: gpu_block_size=64 not divisible by hash_block_size=256.",
    "triton-shared-memory": "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 147456",
    "inductor-failed": "torch._inductor.exc.InductorError: AssertionError: assert numel",
    "illegal-memory-access": "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
    "wrong-argument": "vllm serve: error: unrecognized arguments: --no-such-flag 3",
    "wrong-value": "pydantic_core._pydantic_core.ValidationError: 1 validation error for CacheConfig",
    "killed": "Worker proc VllmWorker-0 died unexpectedly (exit code: -9), shutting down executor.",
    "process-gone": "[shutdown] MPClient: engine core exited unexpectedly; starting cleanup",
    "segmentation-fault": "Worker proc VllmWorker-0 died unexpectedly (exit code: -11), shutting down executor.",
}


@each("name", EXAMPLES)
def test_a_known_failure_is_recognized_by_its_message(name: str) -> None:
    """No earlier pattern takes it away."""
    found = known_failures.find(EXAMPLES[name])
    assert found
    assert found.name == name


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ("PermissionError: [Errno 13] Permission denied: '/psm_c2066d30'", "shared-memory-not-writable"),
        (
            "ncclSystemError: /dev/shm/nccl-x1Yz (size 33030528), error: Read-only file system (30)",
            "shared-memory-not-writable",
        ),
        (
            "ncclSystemError: /dev/shm/nccl-x1Yz (size 33030528), error: No space left on device (28)",
            "shared-memory-full",
        ),
        ("OSError: [Errno 30] Read-only file system: '/var/cache/vllm'", "not-permitted"),
    ],
)
def test_shared_memory_that_cannot_be_written_is_distinguished_from_a_full_one_and_from_other_folders(
    error: str, name: str
) -> None:
    found = known_failures.find(error)
    assert found
    assert found.name == name
    assert ("/dev/shm" in found.remedy) == name.startswith("shared-memory")


def test_every_known_failure_is_complete() -> None:
    names = {cause.name for cause in exit_cause.CAUSES} | {"failed", "out-of-memory"}
    found_from_outside = {f.name for f in known_failures.known() if f.cause == "stalled"}
    for failure in known_failures.known():
        assert failure.cause in names
        assert failure.name in EXAMPLES or failure.name in found_from_outside
        for text in (failure.remedy, *(case.text for case in failure.cases)):
            assert text.endswith((".", "{report}", "{missing}", "{processes}"))
            assert len(text) < 300
        for serving, nvlink in itertools.product((True, False), (True, False, None)):
            advice = failure.advice(Situation(nvlink=nvlink, serving=serving))
            assert "{" not in advice
            assert advice.endswith(".")
        assert re.match(r"https://github\.com/|$", failure.link)


@pytest.mark.parametrize(
    ("error", "at_load", "later"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.00 GiB.", 80, 81),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", 87, 82),
        ("ValueError: something that nobody knows", 87, 82),
        ("OSError: [Errno 28] No space left on device", 69, 69),
        ("TimeoutError: RPC call to execute_model timed out.", 83, 83),
        ("ValueError: To serve at least one request with the model's max seq len (1048576)", 78, 82),
    ],
)
def test_the_same_error_means_another_thing_once_the_engine_was_ready(error: str, at_load: int, later: int) -> None:
    assert reason(died(error, "EngineCore failed to start.")).cause.exit_status == at_load
    found = reason(died(error), was_ready=True)
    assert (found.cause.exit_status, found.root) == (later, error)


def test_the_root_is_the_workers_error_and_not_its_echoes() -> None:
    lines = [
        *logged("Worker_TP1", "WorkerProc failed to start.", "RuntimeError: the root"),
        *logged("EngineCore", "EngineCore failed to start.", "Exception: WorkerProc initialization failed due to an"),
        "Process EngineCore:",
        *TRACEBACK,
        "Exception: WorkerProc initialization failed due to an exception in a background process.",
        *TRACEBACK,
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}",
    ]
    found = reason(lines)
    assert found.root == "RuntimeError: the root"
    assert found.sentence == f"vLLM ended while loading weights (exit status 1). {known_failures.REPORT}"


def test_of_a_chain_of_exceptions_the_last_one_is_the_root_unless_an_earlier_one_is_known() -> None:
    chain = [
        *TRACEBACK,
        "ValueError: first",
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        *TRACEBACK,
        "RuntimeError: last",
    ]
    assert reason(chain).root == "RuntimeError: last"
    known = [line.replace("ValueError: first", "OSError: [Errno 28] No space left on device") for line in chain]
    assert reason(known).cause is exit_cause.HOST


def test_a_bare_assertion_says_what_it_asserted() -> None:
    lines = [
        *TRACEBACK[:-1],
        "    assert self.is_static_input_scheme is False",
        "           ^^^^^^^^",
        "AssertionError",
    ]
    assert reason(lines).failure == "static-scheme-asserted"


@pytest.mark.parametrize("status", [-9, 137])
def test_a_vllm_that_was_killed_says_so(status: int) -> None:
    found = reason([], status)
    assert found.root == "vLLM was ended by SIGKILL"
    assert "OOMKilled" in found.sentence
    assert reason([], status, was_ready=True).cause is exit_cause.ENGINE_DIED


def test_a_signal_is_the_root_where_the_log_only_echoes_that_something_failed() -> None:
    echo = "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above)"
    lines = logged("APIServer", "AsyncLLM output_handler failed.", echo)
    assert reason(lines, 1, was_ready=True).root == echo
    killed = reason(lines, -9, was_ready=True)
    assert (killed.root, killed.failure) == ("vLLM was ended by SIGKILL", "killed")


@pytest.mark.parametrize("status", [-6, 134])
def test_an_error_that_ended_a_process_is_the_root_although_a_signal_came_too(status: int) -> None:
    aborted = reason(died("RuntimeError: the root"), status, was_ready=True)
    assert aborted.root == "RuntimeError: the root"
    assert "(SIGABRT)." in aborted.sentence


def test_sigterm_from_elsewhere_cuts_what_runs() -> None:
    assert reason([], -15, was_ready=True).cause is exit_cause.CUT
    assert reason([], 143).cause is exit_cause.START_FAILED


def test_an_engine_that_died_is_no_orderly_end_although_the_status_is_0() -> None:
    """vLLM's API server ends with status 0 when its watchdog finds the engine dead."""
    assert reason(died("RuntimeError: x"), 0, was_ready=True).cause is exit_cause.ENGINE_DIED
    assert reason([], 0, was_ready=True).cause is exit_cause.ENGINE_DIED


@pytest.mark.parametrize(
    "line",
    [
        "(APIServer pid=7) INFO 11-22 04:11:57 [logger.py:66] Received request: 'torch.OutOfMemoryError: CUDA out of memory'",
        "(APIServer pid=7) INFO 11-22 04:11:57 [logger.py:66] OSError: [Errno 98] Address already in use",
        "(APIServer pid=7) INFO 11-22 04:11:57 [logger.py:66] Traceback (most recent call last):",
        "(APIServer pid=7) WARNING 11-22 04:11:57 [system_utils.py:255] can cause errors like `OSError: [Errno 24] Too many",
        "INFO:     vllm serve: error: unrecognized arguments",
    ],
)
def test_a_users_text_in_the_log_is_not_taken_for_a_cause(line: str) -> None:
    found = reason([line, "OSError: [Errno 98] Address already in use"], was_ready=True)
    assert (found.cause, found.root) == (exit_cause.ENGINE_DIED, "")


def test_an_error_that_a_request_met_is_not_why_the_engine_died_later() -> None:
    request = [
        "ERROR:    Exception in ASGI application",
        *TRACEBACK,
        "torch.OutOfMemoryError: CUDA out of memory.",
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        *TRACEBACK,
        "OSError: [Errno 28] No space left on device",
    ]
    found = reason([*request, *died("RuntimeError: the root")], was_ready=True)
    assert (found.cause, found.root) == (exit_cause.ENGINE_DIED, "RuntimeError: the root")


def test_an_error_that_a_request_met_is_not_why_vllm_was_killed() -> None:
    request = ["ERROR:    Exception in ASGI application", *TRACEBACK, "OSError: [Errno 28] No space left on device"]
    assert reason(request, -9, was_ready=True).failure == "killed"
    idle = ['INFO:     127.0.0.1:1 - "GET /health HTTP/1.1" 200 OK'] * BURST
    assert reason([*request, *idle], 1, was_ready=True).root == ""


def test_what_went_wrong_long_before_is_not_why_it_died_now() -> None:
    old = logged("EngineCore", "WorkerProc hit an exception.", "torch.OutOfMemoryError: CUDA out of memory")
    idle = ['INFO:     127.0.0.1:1 - "GET /health HTTP/1.1" 200 OK'] * (BURST + 1)
    assert reason([*old, *idle, *died("RuntimeError: the root")], was_ready=True).root == "RuntimeError: the root"


def test_a_warning_with_a_traceback_is_no_cause() -> None:
    warned = logged("EngineCore", "Skipping watermark sampler warmup.", "RuntimeError: CUDA out of memory", "WARNING")
    assert (
        reason([*warned, *died("ValueError: the root", "EngineCore failed to start.")]).root == "ValueError: the root"
    )


def test_a_stall_or_a_hang_is_explained_by_the_last_line_or_by_ranks_that_wait() -> None:
    stalled = ExitReason(
        exit_cause.STALLED, "connecting ranks: no progress for 60 s; last line: vLLM is using nccl==2.29.7"
    )
    assert "--nccl p2p-off" in explain(stalled, LogNotes()).sentence
    hung = ExitReason(exit_cause.HUNG, "no progress for 120 s while there was work")
    assert explain(hung, LogNotes()).sentence == f"{hung.sentence} {known_failures.REPORT}"
    waiting = notes_on(
        [
            "(EngineCore pid=7) INFO 11-22 04:11:57 [shm_broadcast.py:750] No available shared memory broadcast block found in 60 seconds."
        ]
    )
    assert "disable-custom-all-reduce" in explain(hung, waiting).sentence


def test_notes_do_not_grow_with_the_log() -> None:
    notes = LogNotes()
    for number in range(20 * KEPT):
        for line in logged("EngineCore", "WorkerProc hit an exception.", f"ValueError: {number} " + "x" * 9000):
            notes.feed(LogLine.parse(line))
    roots = notes.roots()
    assert len(roots) == KEPT
    assert roots[0].text.startswith("ValueError: 0 x")
    assert max(len(root.text) for root in roots) <= 500


def test_every_exit_status_stands_for_one_cause() -> None:
    assert len({cause.exit_status for cause in exit_cause.CAUSES}) == len(exit_cause.CAUSES)
    assert [exit_cause.by_status(cause.exit_status) for cause in exit_cause.CAUSES] == list(exit_cause.CAUSES)
    assert exit_cause.by_status(1) is exit_cause.START_FAILED


@cache
def source(file: str) -> str:
    spec = find_spec("vllm")
    assert spec
    assert spec.submodule_search_locations
    return (Path(spec.submodule_search_locations[0]) / file).read_text(encoding="utf-8")


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed beside this interpreter")
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("entrypoints/serve/utils/api_utils.py", "non-default args"),
        ("config/model.py", "Resolved architecture"),
        ("v1/engine/core.py", "Initializing a V1 LLM engine"),
        ("v1/engine/core.py", "init engine (profile"),
        ("v1/engine/core.py", "EngineCore failed to start."),
        ("v1/engine/core.py", "EngineCore encountered a fatal error."),
        ("v1/engine/utils.py", "Engine core initialization failed. "),
        ("v1/engine/async_llm.py", "AsyncLLM output_handler failed."),
        ("v1/engine/exceptions.py", "EngineCore encountered an issue."),
        ("v1/engine/core_client.py", "engine core exited unexpectedly"),
        ("v1/executor/multiproc_executor.py", "WorkerProc failed to start."),
        ("v1/executor/multiproc_executor.py", "WorkerProc hit an exception."),
        ("v1/executor/multiproc_executor.py", "died unexpectedly (exit code: %s)"),
        ("v1/executor/multiproc_executor.py", "RPC call to {method} timed out."),
        ("v1/core/kv_cache_utils.py", "%s KV cache size: %s tokens, "),
        ("v1/core/kv_cache_utils.py", "To serve at least one request with the model's max seq len "),
        ("v1/worker/utils.py", "is less than desired GPU memory utilization "),
        ("v1/worker/gpu_worker.py", "Available KV cache memory: %s GiB"),
        ("v1/worker/gpu_worker.py", "Initial free memory "),
        ("v1/worker/gpu/model_runner.py", "Loading model from scratch..."),
        ("v1/worker/gpu/model_runner.py", "Model loading took %s GiB"),
        ("v1/worker/gpu/model_runner.py", "Graph capturing finished in"),
        ("v1/worker/gpu/cudagraph_utils.py", '"Capturing CUDA graphs"'),
        ("distributed/parallel_state.py", "is assigned as "),
        ("distributed/device_communicators/pynccl.py", "vLLM is using nccl=="),
        ("distributed/device_communicators/shm_broadcast.py", "No available shared memory broadcast block found "),
        ("model_executor/model_loader/weight_utils.py", "Loading safetensors checkpoint shards"),
        ("model_executor/model_loader/default_loader.py", "Loading weights took"),
        ("model_executor/warmup/deep_gemm_warmup.py", '"DeepGEMM warmup"'),
        ("model_executor/warmup/jit_warmup.py", "JIT kernel warmup ({total_keys} compile keys)"),
        ("model_executor/warmup/kernel_warmup.py", "Running FlashInfer autotune with"),
        ("compilation/backends.py", "Dynamo bytecode transform time"),
        ("compilation/backends.py", "Directly load the compiled graph(s)"),
        ("compilation/decorators.py", "Directly load AOT compilation"),
        ("compilation/decorators.py", "saved AOT compiled function to"),
        ("entrypoints/launchers/launcher.py", "[shutdown] API server: shutdown triggered"),
        ("entrypoints/launchers/api_server/entry.py", "Starting vLLM server on"),
        ("models/deepseek_v4/nvidia/mtp.py", "MTP speculative decoding layer {layer_idx} weights "),
    ],
)
def test_the_installed_vllm_still_has_this_message(file: str, words: str) -> None:
    assert words in source(file)
