"""The product's modules, each parsed once for all tests that read code; these are in one process, `pytestmark = TOGETHER`."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

TOGETHER = pytest.mark.xdist_group("sources")


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))
