"""
Compile modules of FlashInfer during a first start, before vLLM needs them.

vLLM compiles each module on first use and waits for it. One C++ file then occupies one core for a minute and a half,
twice in a first start on 2 x H200 (vLLM 0.32.0, 2026-11-22, docs/results/speed.md). Compiled from the start on,
both are ready in time. FlashInfer's lock makes vLLM wait for an unfinished module, and ninja skips a finished one.

A module is named as `MODULE:FUNCTION`, the function that returns its build specification. No GPU is touched: the
architecture is that of FLASHINFER_CUDA_ARCH_LIST.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from . import background

log = logging.getLogger(__name__)


async def compile_all(names: Sequence[str], environ: Mapping[str, str]) -> None:
    """
    Compile in a process of low priority with vLLM's variables.

    A failure is only logged, since vLLM then compiles by itself.
    """
    if not names:
        return
    status, last = await background.run(__spec__.name, *names, environ={**environ, "CUDA_VISIBLE_DEVICES": ""})
    if status:
        log.info(f"note: the JIT prebuild failed with status {status} ({last}); vLLM compiles these modules itself")


def specification(name: str) -> Any:
    """Return the build specification of a module; raise ImportError or AttributeError for an unknown name."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)()


def main(names: Sequence[str]) -> None:
    """Compile all of them in parallel, each under FlashInfer's lock; raise what FlashInfer raises."""
    specifications = [specification(name) for name in names]  # one by one: its modules import each other
    with ThreadPoolExecutor(len(specifications)) as pool:
        list(pool.map(lambda spec: spec.build(need_lock=True), specifications))


if __name__ == "__main__":
    main(sys.argv[1:])
