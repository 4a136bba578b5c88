"""The demo's checkpoints, each with a known answer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import deepseek_v4, llama, v4_text
from .patched import patched_vllm


@dataclass(frozen=True)
class Exhibit:
    """
    One checkpoint, and what it thinks and answers.

    `acceptance` is the least share of draft tokens that has to be accepted; `vllm` goes first on PYTHONPATH.
    """

    checkpoint: Path
    reasoning: str
    answer: str
    acceptance: float
    vllm: Path


def tiny_llama(folder: Path) -> Exhibit:
    """A Llama that knows one answer, drafted by n-grams."""
    checkpoint = llama.write_checkpoint(folder / "llama")
    return Exhibit(checkpoint, llama.REASONING, llama.ANSWER, acceptance=0.5, vllm=patched_vllm(folder))


def tiny_deepseek_v4(folder: Path) -> Exhibit:
    """A DeepSeek-V4 that walks a permutation of its tokens, drafted by its MTP head."""
    checkpoint = folder / "deepseek-v4"
    dims = deepseek_v4.Dims(experts=64, max_positions=16_384)  # vLLM's CPU router takes 64; a position is memory
    deepseek_v4.write(checkpoint, "bf16", dims, walk=v4_text.readable_walk())
    thought, answer = "".join(v4_text.THOUGHT), "".join(v4_text.ANSWER)
    return Exhibit(checkpoint, thought, answer, acceptance=0.99, vllm=patched_vllm(folder))


EXHIBITS: dict[str, Callable[[Path], Exhibit]] = {"demo": tiny_llama, "demo-v4": tiny_deepseek_v4}
