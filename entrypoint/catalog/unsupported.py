"""GPUs and accelerators that people own and that cannot serve here, by name: the reason, in one or two sentences."""

from __future__ import annotations

import re

SERVED = ("9.0", "10.0", "10.3", "12.0", "12.1")
"""Compute capabilities for which vLLM 0.32.0 has DeepSeek-V4's attention kernels: FlashMLA, FlashInfer's sparse MLA."""

_KERNELS = f"vLLM 0.32.0 has DeepSeek-V4's attention kernels for SM {', '.join(SERVED[:-1])} and {SERVED[-1]} only"
_CUDA_ONLY = "the profiles, patches and image of dsv4-serve are for vLLM's CUDA build."

GEFORCE_GB = 32
"""The most memory of a GeForce, in GB."""

_BY_NAME = {
    r"v100|t4|titanv|rtx20\d\d|quadrortx\d+": f"it is older than SM 8.0, and {_KERNELS}",
    r"a(100|800|40|30|16|10|10g|2)|rtxa\d{4}|(rtx)?30[5-9]0(ti)?": f"it is SM 8.0 or 8.6, and {_KERNELS}",
    r"l(40s?|20|4|2)|rtx\d000ada|(rtx)?40[5-9]0(ti|super|tisuper|d)?": f"it is SM 8.9, and {_KERNELS}",
    r"(rtx)?50[5-9]0(ti|d)?": f"a GeForce has at most {GEFORCE_GB} GB, and the smallest shipped model takes 38 GiB of"
    " weights on each of four GPUs (computed); on a host of eight, which no one has measured, leave the hardware out",
    r"(amd|rocm|radeon|instinct|gfx|mi\d{3}).*": f"it is an AMD accelerator, and {_CUDA_ONLY}"
    " vLLM's own ROCm build has DeepSeek-V4",
    r"ascend.*|910[bc]?|950\w*|atlas.*|npu": f"it is an Ascend accelerator, and {_CUDA_ONLY}"
    " Ascend's own plugin, vllm-ascend, has DeepSeek-V4",
}
_DETAILS = r"(sxm\d?|pcie|nvl|generation|laptopgpu|hbm\w*|\d+gb)*"

DEVICES = {
    "/dev/kfd": f"this host has an AMD accelerator (/dev/kfd), and {_CUDA_ONLY} vLLM's own ROCm build has DeepSeek-V4",
    "/dev/davinci_manager": f"this host has an Ascend accelerator (/dev/davinci_manager), and {_CUDA_ONLY}"
    " Ascend's own plugin, vllm-ascend, has DeepSeek-V4",
}
"""Device nodes of other makers' accelerators, and what to answer where no NVIDIA driver responds."""


def folded(name: str) -> str:
    """Return a GPU's name without its maker, case and separators, so that spellings of one name are equal."""
    return re.sub(r"^(nvidia)?(geforce)?", "", re.sub(r"[^a-z0-9]", "", name.lower()))


def by_name(name: str) -> str:
    """Return why a GPU of this name cannot serve; empty if the name is none of these."""
    reasons = (why for names, why in _BY_NAME.items() if re.fullmatch(f"(?:{names}){_DETAILS}", folded(name)))
    return next(reasons, "")


def by_capability(capability: str) -> str:
    """Return why a GPU of this compute capability cannot serve; empty if it can, or is not known."""
    return f"it is SM {capability}, and {_KERNELS}" if capability and capability not in SERVED else ""
