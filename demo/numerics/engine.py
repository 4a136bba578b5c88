"""
Ask an engine in this process what a random checkpoint answers, target model and drafter.

    python -m dsv4_serve.demo.numerics.engine OUT.npz CHECKPOINT --options '{"tensor_parallel_size": 2}'

The vLLM that answers is the first on the path. `--options` are arguments of `vllm.LLM`. The drafter's logits are copied
where they are sampled from, by a worker extension; a full CUDA graph leaves none to copy.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .prompts import GENERATED, PROMPTS, VOCAB, NumericsPrompt
from .rows import Rows, answered

NAMED = {prompt.name: prompt for prompt in PROMPTS}
TOP = 20
"""How many logprobs a token vLLM returns without a flag."""
TOKENS = {"mtp": 1, "dspark": 5, "none": 0}
"""Drafted a step, by drafter: DSpark's whole block."""


class Recorder:
    """Worker extension: keeps the drafter's logits of every step; a step of DSpark has as many as it drafts tokens."""

    kept: list[Any]
    model_runner: Any

    def record_drafts(self) -> None:
        """Begin to record."""
        self.kept, speculator = [], self.model_runner.speculator
        sampled = getattr(speculator, "_sample_logits", None)
        inner = sampled or speculator.compute_draft_logits

        def recorded(first: Any, *others: Any) -> Any:
            result = inner(first, *others)
            logits = first if sampled else result
            self.kept.append(logits.float().cpu().numpy()[0])
            return result

        setattr(speculator, "_sample_logits" if sampled else "compute_draft_logits", recorded)

    def recorded_drafts(self) -> list[Any]:
        """Return what was recorded since the last time."""
        kept, self.kept = self.kept, []
        return kept


def ask(engine: Any, prompts: Sequence[NumericsPrompt], *, at_once: bool = False, tokens: int = 1) -> Rows:
    """Ask every prompt and return the rows of logprobs by its name; `tokens` are drafted a step."""
    from vllm import SamplingParams

    def sampling(prompt: NumericsPrompt) -> Any:
        fixed: dict[str, Any] = {
            "temperature": 0,
            "max_tokens": GENERATED,
            "ignore_eos": True,
            "allowed_token_ids": [prompt.answer],
        }
        return SamplingParams(**fixed, logprobs=TOP, prompt_logprobs=TOP)

    rows: Rows = {}
    for batch in [prompts] if at_once else [[prompt] for prompt in prompts]:
        requests = [{"prompt_token_ids": list(prompt.tokens)} for prompt in batch]
        outputs = engine.generate(requests, [sampling(prompt) for prompt in batch], use_tqdm=False)
        for prompt, output in zip(batch, outputs, strict=True):
            answer = output.outputs[0]
            rows[prompt.name] = table([*output.prompt_logprobs[1:], *answer.logprobs])
            if tokens and not at_once and (drafts := engine.collective_rpc("recorded_drafts")[0]):
                kind = "draft" if tokens == 1 else "dspark"
                rows[f"{prompt.name}/{kind}"] = answered(drafts, answer.token_ids, tokens)
    return rows


def table(places: Sequence[Mapping[int, Any]]) -> "np.typing.NDArray[np.float32]":
    """Return one row a position, NaN for tokens that were not returned."""
    out = np.full((len(places), VOCAB), np.nan, np.float32)
    for row, place in zip(out, places, strict=True):
        for token, entry in place.items():
            row[token] = entry.logprob
    return out


def main() -> None:
    """Serve, ask and write."""
    parser = argparse.ArgumentParser(description="Record what an engine answers to the prompts of a random checkpoint.")
    parser.add_argument("out", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--drafter", choices=TOKENS, default="mtp")
    parser.add_argument("--prompts", nargs="+", choices=NAMED, default=list(NAMED), metavar="NAME")
    parser.add_argument("--crowd", type=int, default=0, help="then so many of each at once, as NAME@NUMBER")
    options = parser.parse_args()
    prompts = [NAMED[name] for name in options.prompts]
    crowd = [replace(prompt, name=f"{prompt.name}@{number}") for number in range(options.crowd) for prompt in prompts]
    np.savez_compressed(
        options.out, allow_pickle=False, **served(options.checkpoint, prompts, crowd, options.drafter, options.options)
    )


def served(
    checkpoint: Path,
    prompts: Sequence[NumericsPrompt],
    crowd: Sequence[NumericsPrompt],
    drafter: str,
    options: Mapping[str, Any],
) -> Rows:
    """Start an engine, ask one prompt after the other and then the crowd at once, and stop it."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    from vllm import LLM

    if tokens := TOKENS[drafter]:
        options = {"speculative_config": {"method": drafter, "num_speculative_tokens": tokens}, **options}
    defaults = {
        "max_model_len": 2816,
        "max_num_batched_tokens": 4096,
        "max_num_seqs": 8,
        "enable_prefix_caching": False,
    }
    engine = LLM(str(checkpoint), worker_extension_cls=f"{__package__}.engine.Recorder", **(defaults | dict(options)))
    if tokens:
        engine.collective_rpc("record_drafts")
    rows = ask(engine, prompts, tokens=tokens)
    if crowd:
        rows |= ask(engine, crowd, at_once=True)
    engine.llm_engine.engine_core.shutdown()
    return rows


if __name__ == "__main__":
    main()
