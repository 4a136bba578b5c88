"""Numerics: a random checkpoint's log-probabilities against reference values, alone and several requests at once."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import ConfigError
from ...smoke.outcome import Outcome, failed, passed, skipped
from .. import checkpoint, small
from ..box import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = dict[str, NDArray[np.generic]]

TOP = 20
"""Log-probabilities of a position: as many as vLLM returns without a flag."""
CONTEXT = "2816"
"""Tokens of the longest prompt and its answer, in whole blocks."""
GATE = ("--gate.below-floor", "warn", "--gate.corrupted", "warn", "--gate.tokens", "4", "--gate.concurrency", "2")
"""Random weights draft nothing and write no language."""
SUSPECTS = "a kernel computes something else than the model: try another --moe-backend, and report it"


class RandomPrompt(Protocol):
    """What is asked: `demo.numerics` has three."""

    @property
    def name(self) -> str:
        """Its name in the reference."""
        ...

    @property
    def tokens(self) -> Sequence[int]:
        """Token ids."""
        ...

    @property
    def answer(self) -> int:
        """The only token that the answer may have."""
        ...


def numerics(box: Box) -> Outcome:
    """Three prompts: within a window, beyond YaRN's original maximum, beyond what the indexer chooses from."""
    from ....demo.numerics import compare, golden, prompts

    size = "tiny" if box.on_cpu else "flash"
    try:
        layout, reference = checkpoint.layout_of(box.selection), golden.load(size)
    except ConfigError as error:
        return skipped(str(error))
    except FileNotFoundError:
        return skipped(f"no reference values for checkpoints of size {size} are shipped")
    folder = _write(box, layout, size)
    flags = (*small.without(box.serve.flags, "max-model-len"), "--max-model-len", CONTEXT, *GATE)
    with small.serving(box, small.served(box, folder, flags)) as (_, asker):
        alone = [asker.raw(body(prompt), box.remaining) for prompt in prompts.PROMPTS]
        at_once = asker.raws([body(prompt) for prompt in prompts.PROMPTS], box.remaining)
    limits = compare.limits(hardware_of(box, layout))
    found = {
        name: compare.compare(reference, rows(prompts.PROMPTS, answers, prompts.VOCAB), limits)
        for name, answers in (("alone", alone), ("at once", at_once))
    }
    figures = {f"{name}: {what}": round(value, 4) for name, one in found.items() for what, value in one.figures.items()}
    reasons = [f"{name}, {reason}" for name, one in found.items() for reason in one.reasons]
    return judged(reasons, figures, layout)


def body(prompt: RandomPrompt) -> dict[str, Any]:
    """Return the request: the prompt's only allowed answer makes every engine compute the same positions."""
    from ....demo.numerics.prompts import GENERATED

    return {
        "prompt": list(prompt.tokens),
        "max_tokens": GENERATED,
        "allowed_token_ids": [prompt.answer],
        "ignore_eos": True,
        "logprobs": TOP,
        "prompt_logprobs": TOP,
        "return_tokens_as_token_ids": True,
        "cache_salt": secrets.token_hex(8),
    }


def rows(prompts: Sequence[RandomPrompt], answers: Sequence[Mapping[str, Any]], vocab: int) -> Rows:
    """Return the log-probabilities of each prompt, a row a position; NaN where the engine returned none."""
    import numpy as np

    found: Rows = {}
    for prompt, answer in zip(prompts, answers, strict=True):
        choice = answer["choices"][0]
        places = [
            {int(token): one["logprob"] for token, one in (at or {}).items()} for at in choice["prompt_logprobs"][1:]
        ]
        generated = choice["logprobs"]["top_logprobs"]
        places += [{int(token.removeprefix("token_id:")): value for token, value in at.items()} for at in generated]
        table = np.full((len(places), vocab), np.nan, np.float32)
        for row, place in zip(table, places, strict=True):
            for token, value in place.items():
                row[token] = value
        found[prompt.name] = table
    return found


def judged(reasons: Sequence[str], figures: Mapping[str, float], layout: str) -> Outcome:
    """Return the outcome of what was compared."""
    if reasons:
        more = f" ({len(reasons)} such figures)" if len(reasons) > 1 else ""
        return failed(f"layout {layout}: {reasons[0]}{more}", SUSPECTS, **figures)
    largest = max((value for name, value in figures.items() if name.endswith("median")), default=0.0)
    seen = f"log-probabilities in layout {layout} are the reference's, alone and at once; largest median distance"
    return passed(f"{seen} {largest:.3f}", **figures)


def hardware_of(box: Box, layout: str) -> str:
    """Return what limits are for: from SM 10.0 on, experts of NVFP4 may be computed with activations of four bits."""
    if box.on_cpu:
        return "cpu"
    before = str(box.selection.hardware.get("compute_capability")).startswith(("8.", "9."))
    return "gpu-w4a4" if layout in checkpoint.LAYOUTS_OF_NVFP4 and not before else "gpu"


def _write(box: Box, layout: str, size: str) -> Path:
    from ....demo.numerics import checkpoint as random

    return checkpoint.written(box.folder, f"random-{layout}", [size], lambda path: random.write(path, layout, size))
