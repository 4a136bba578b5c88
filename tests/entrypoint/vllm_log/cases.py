"""What is right for each log of cases/: written after reports of 2026 in our own words, names and paths replaced."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).with_name("cases")
PCIE = {"disable-custom-all-reduce": "True", "NCCL_P2P_DISABLE": "1", "tensor-parallel-size": "2"}
EXPANDABLE = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
CURAND = ("curand.h", "libcurand-dev-13-0", "nvidia-curand", "the image")
REPORT = ("dsv4 bundle --support",)


@dataclass(frozen=True)
class Case:
    """One log: its status, words of its root and of its advice, and words that must not be said."""

    name: str
    failure: str
    """Its name in failures.toml; empty where nothing is known."""
    status: int
    root: tuple[str, ...]
    advice: tuple[str, ...]
    never: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    nvlink: bool | None = False

    @property
    def serving(self) -> bool:
        """Whether the replica had been ready."""
        return self.name[:2] in ("01", "02", "17", "18", "30")

    @property
    def log(self) -> bytes:
        """The log."""
        return (FOLDER / f"{self.name}.log").read_bytes()


CASES = [
    Case(
        "01-rpc-timeout-long-context",
        "ranks-wait-for-each-other",
        83,
        ("RPC call to sample_tokens timed out",),
        ("Xid", *REPORT),
        ("set disable-custom-all-reduce", "p2p-off"),
        PCIE,
    ),
    Case(
        "02-illegal-access-after-32h",
        "illegal-memory-access",
        82,
        ("torch.AcceleratorError", "illegal memory access"),
        ("dmesg", "Xid", *REPORT),
        ("graphs", "enforce-eager", "IOMMU"),
        nvlink=True,
    ),
    Case(
        "03-deepgemm-layout-sm120", "deep-gemm-scale-layout", 87, ("layout.hpp:60", "Unknown SF transformation"), REPORT
    ),
    Case(
        "04-deepgemm-invalid-image-gb10",
        "deep-gemm-kernel-rejected",
        87,
        ("CUDA_ERROR_INVALID_IMAGE",),
        ("DSV4_CACHE", *REPORT),
    ),
    Case(
        "05-deepgemm-launch-invalid-argument-b300",
        "deep-gemm-kernel-rejected",
        87,
        ("handle.hpp:98", "invalid argument"),
        ("DSV4_CACHE", *REPORT),
    ),
    Case("06-deepgemm-nvcc-failed", "compiler-too-old", 69, ("nvcc fatal", "sm_103f"), ("cuda-nvcc-13-0", "the image")),
    *(
        Case(
            name,
            "header-or-library-missing",
            69,
            ("fatal error: curand.h", "sampling", "csrc_0.cuda.o"),
            CURAND,
            ("OOMKilled",),
        )
        for name in ("07-ninja-curand-tp1", "08-ninja-curand-tp2", "09-ninja-curand-tp8")
    ),
    Case(
        "11-dp-assertion-then-peer-nccl", "", 87, ("AssertionError: 4096 20",), REPORT, ("p2p-off", "/dev/shm", "IOMMU")
    ),
    Case(
        "12-device-assert-draft-vocab",
        "index-out-of-bounds",
        87,
        ("device-side assert", "IndexKernel.cu:111", "index out of bounds"),
        ("NUM_SPECULATIVE_TOKENS=0",),
        ("enforce-eager",),
    ),
    Case(
        "13-custom-all-reduce-expandable",
        "custom-all-reduce-broken",
        87,
        ("custom_all_reduce.cuh:455",),
        ("expandable_segments", "PYTORCH_CUDA_ALLOC_CONF"),
        ("needs peer access",),
        EXPANDABLE,
        nvlink=True,
    ),
    Case("14-megamoe-needs-sm100", "mega-moe-needs-sm100", 78, ("MegaMoE requires SM100",), ("leave moe-backend out",)),
    Case(
        "15-fp4-indexer-needs-sm100",
        "fp4-indexer-needs-sm100",
        78,
        ("use_fp4_indexer_cache requires",),
        ("use_fp4_indexer_cache",),
    ),
    Case(
        "16-sparse-mla-sm120-dispatch",
        "sparse-mla-dispatch",
        87,
        ("tvm.error.InternalError", "num_tokens > 64"),
        REPORT,
    ),
    Case("17-offload-assert-dp", "", 82, ("AssertionError: assert req_status.pending is not None",), REPORT),
    Case(
        "18-unspecified-launch-failure",
        "illegal-memory-access",
        82,
        ("unspecified launch failure",),
        ("Xid", *REPORT),
        ("graphs",),
    ),
    Case(
        "19-block-not-divisible-tp16",
        "partition-not-divisible",
        78,
        ("= 192 is not divisible",),
        ("tensor-parallel-size",),
    ),
    Case(
        "20-offload-block-size", "offload-block-size", 78, ("gpu_block_size=64 not divisible",), ("kv-transfer-config",)
    ),
    Case(
        "21-inductor-assertion",
        "inductor-failed",
        87,
        ("InductorError: AssertionError",),
        ("DSV4_CACHE", "enforce-eager", *REPORT),
    ),
    Case(
        "22-triton-out-of-shared-memory",
        "triton-shared-memory",
        87,
        ("shared memory, Required: 147456",),
        ("Triton", *REPORT),
    ),
    Case(
        "30-crash-with-016-streams-oom",
        "cuda-out-of-memory",
        81,
        ("torch.OutOfMemoryError",),
        ("gpu-memory-utilization",),
    ),
    Case(
        "30-crash-with-029-streams-oom",
        "cuda-out-of-memory",
        81,
        ("torch.OutOfMemoryError",),
        ("gpu-memory-utilization",),
    ),
    *(
        Case(name, "header-or-library-missing", 69, ("x0.cu:20:10: fatal error: curand.h",), CURAND, ("OOMKilled",))
        for name in ("chain-ninja-4", "chain-ninja-20")
    ),
    Case("chain-plain", "", 87, ("ValueError: Expert weights of layer 3 are stored",), REPORT, ("some/internal/path",)),
]
