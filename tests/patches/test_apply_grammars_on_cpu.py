"""The kernel that applies a grammar, alone, in Triton's interpreter: from the tree with the series for CPUs, and without."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from dsv4_serve.demo.patched import installed, patched_vllm

pytestmark = pytest.mark.skipif(not find_spec("triton"), reason="triton is not installed")

PROGRAM = """
import torch
from kernel import _apply_grammar_bitmask_kernel as kernel
logits, counts = torch.zeros(2, 40), torch.tensor([0, 1, 2], dtype=torch.int32)
rows, mask = torch.tensor([1], dtype=torch.int32), torch.tensor([[0b101, 0]], dtype=torch.int32)
kernel[(1, 1)](logits, 40, rows, counts, mask, 2, 40, MASK_STRIDE=1, BLOCK_SIZE=1024)
assert logits[0].eq(0).all()
assert logits[1].isfinite().nonzero().flatten().tolist() == [0, 2]
"""


def applied(folder, package):
    source = (package / "v1/worker/gpu/structured_outputs.py").read_text()
    kernel = "import triton\nimport triton.language as tl\n" + source[source.index("@triton.jit") :]
    folder.mkdir()
    (folder / "kernel.py").write_text(kernel)
    settings = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=settings, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def test_a_grammar_allows_what_it_allows(tmp_path):
    assert applied(tmp_path / "patched", patched_vllm(tmp_path / "trees") / "vllm") == ""


def test_without_the_patch_the_kernel_fails(tmp_path):
    assert "mask has unsupported dtype" in applied(tmp_path / "stock", installed())
