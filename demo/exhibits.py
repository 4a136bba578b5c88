"""The demo's checkpoints, each with a question and its known answer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..entrypoint.client.local_replica import ServeProcess
from . import deepseek_v4, llama
from .patched import patched_vllm
from .question import MeasuredAnswer, ask, complete

V4_PROMPT_TOKENS = 200
V4_TOKENS = 64


@dataclass(frozen=True)
class Exhibit:
    """
    One checkpoint, its question and its known answer.

    `acceptance` is the least share of draft tokens that has to be accepted; `vllm` goes first on PYTHONPATH.
    """

    checkpoint: Path
    question: str
    known: str
    ask: Callable[[ServeProcess], MeasuredAnswer]
    acceptance: float
    vllm: Path | None = None


def tiny_llama(folder: Path) -> Exhibit:
    """A Llama that knows one answer, drafted by n-grams: 98 of 105 accepted (vLLM 0.32.0 on CPU, 2026-11-22)."""
    return Exhibit(
        checkpoint=llama.write_checkpoint(folder / "llama"),
        question=llama.QUESTION,
        known=llama.ANSWER,
        ask=lambda server: ask(server, llama.QUESTION, max_tokens=llama.ANSWER_TOKENS),
        acceptance=0.5,
    )


def tiny_deepseek_v4(folder: Path) -> Exhibit:
    """A DeepSeek-V4 that walks a permutation of its tokens, drafted by its MTP head."""
    checkpoint = folder / "deepseek-v4"
    dims = deepseek_v4.Dims(experts=64)  # the minimum of vLLM's CPU router
    answer = deepseek_v4.write(checkpoint, "bf16", dims)
    prompt = [2 + 7 * n % (dims.vocab - 2) for n in range(V4_PROMPT_TOKENS)]
    return Exhibit(
        checkpoint=checkpoint,
        question=f"{V4_PROMPT_TOKENS} token ids, the last one {prompt[-1]}: which {V4_TOKENS} come next?",
        known=" ".join(map(str, answer.continuation(prompt[-1], V4_TOKENS))),
        ask=lambda server: complete(server, prompt, max_tokens=V4_TOKENS),
        acceptance=0.99,
        vllm=patched_vllm(folder),
    )


EXHIBITS: dict[str, Callable[[Path], Exhibit]] = {"demo": tiny_llama, "demo-v4": tiny_deepseek_v4}
