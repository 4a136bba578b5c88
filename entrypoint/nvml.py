"""Which GPUs this host shows, through NVML (nvidia-ml-py); nothing is parsed from nvidia-smi."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from dsv4_serve.entrypoint.choose import Found
from dsv4_serve.entrypoint.errors import ConfigError, listed
from dsv4_serve.entrypoint.sheets import Hardware, Library, Sheet

_BY_HAND = "choose by hand: --hardware NAME (HARDWARE=NAME)"


def gpu_names(environ: Mapping[str, str], nvml: Any = None) -> list[str]:
    """
    Return NVML's name of each GPU that CUDA_VISIBLE_DEVICES leaves visible, in PCI bus order.

    Raise ConfigError when there is no driver, or no GPU.
    """
    nvml = nvml or importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise ConfigError(f"No NVIDIA driver answers on this host (NVML: {error}); {_BY_HAND}.") from None
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        found = [(nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)) for handle in handles]
    except nvml.NVMLError as error:
        raise ConfigError(f"NVML could not read the GPUs ({error}); {_BY_HAND}.") from None
    finally:
        nvml.nvmlShutdown()
    names = _visible(found, environ.get("CUDA_VISIBLE_DEVICES"))
    if not names:
        raise ConfigError(f"The driver shows no GPU to this process; pass GPUs to the container, or {_BY_HAND}.")
    return names


def find(library: Library, environ: Mapping[str, str]) -> Found:
    """Return the hardware that NVML shows, and how many GPUs; raise ConfigError when there is none that is known."""
    names = gpu_names(environ)
    return Found(match(names, library.every_hardware()).name, f"NVML: {len(names)} x {names[0]}", len(names))


def match(names: list[str], library: Iterable[Sheet[Hardware]]) -> Sheet[Hardware]:
    """Return the hardware whose `nvml-names` holds the one GPU model in `names`; raise ConfigError otherwise."""
    models = set(names)
    if len(models) > 1:
        raise ConfigError(
            f"This host shows different GPUs ({listed(models)}); keep one kind (CUDA_VISIBLE_DEVICES), or {_BY_HAND}."
        )
    known = list(library)
    for sheet in known:
        if names[0] in sheet.own.nvml_names:
            return sheet
    raise ConfigError(
        f"No profile knows the GPU {names[0]!r}; {_BY_HAND}, one of {', '.join(sheet.name for sheet in known)}."
    )


def _visible(found: list[tuple[str, str]], wanted: str | None) -> list[str]:
    if wanted is None:
        return [name for _, name in found]
    names = []
    for part in map(str.strip, wanted.split(",")):
        hits = [n for i, (uuid, n) in enumerate(found) if part == str(i) or (len(part) > 4 and uuid.startswith(part))]
        if not hits:
            break  # CUDA ignores what follows the first name that it does not know
        names += hits[:1]
    return names
