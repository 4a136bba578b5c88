"""Quantizations and formats that no model here has, by the name that a checkpoint gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .identity import Unsupported

_NOT_MAPPED = "no: its DeepSeek-V4 loader has no place for {tensors} (models/deepseek_v4/nvidia/model.py)"
_INSTEAD = "a checkpoint of DeepSeek, NVIDIA or canada-quant, as `dsv4 profiles` lists them"

_BY_METHOD: Mapping[str, tuple[str, str, str, str]] = {}


def of(_config: Mapping[str, Any], _files: frozenset[str]) -> Unsupported | None:
    """Return what is unsupported about a checkpoint; None where nothing is."""
    return None
