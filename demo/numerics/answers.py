"""The reference's tables: the target model, the MTP head and the DSpark drafter, for every prompt."""

import hashlib
from collections.abc import Iterable

import numpy as np

from . import drafters, weights
from .attention import Ints
from .checkpoint import SEED, Draw, plainly
from .golden import Golden, kept
from .prompts import GENERATED, PROMPTS, NumericsPrompt
from .reference import DrawnOnDemand, ReferenceModel, drawn, log_softmax
from .rounding import Floats
from .sizes import SIZES


def model(size: str, draw: Draw = plainly) -> ReferenceModel:
    """Return the reference with every weight drawn; `draw` may put other numbers into them."""
    dims, params = SIZES[size], drawn if size == "tiny" else DrawnOnDemand
    return ReferenceModel(
        params(
            [*weights.target(dims), *weights.mtp(dims), *weights.dspark(dims)], lambda parameter: draw(parameter, SEED)
        ),
        dims,
    )


def digest(reference: ReferenceModel) -> str:
    """Return a digest of all weights, to tell whether a table belongs to them."""
    found = hashlib.sha256()
    for name in sorted(reference.p):
        found.update(name.encode() + np.ascontiguousarray(reference.p[name]).tobytes())
    return found.hexdigest()


def golden(size: str, prompts: Iterable[NumericsPrompt] = PROMPTS) -> Golden:
    """Compute and keep the tables of every prompt."""
    reference = model(size)
    tables = {name: kept(*whole) for prompt in prompts for name, whole in computed(reference, prompt).items()}
    return Golden(tables, digest(reference))


def computed(reference: ReferenceModel, prompt: NumericsPrompt) -> dict[str, tuple[Floats, Floats, Ints]]:
    """Return logprobs, margins and routes: of the target model, and of both drafters from the answer on."""
    tokens = np.array([*prompt.tokens, *[prompt.answer] * GENERATED])
    trace = reference.trace(tokens)
    logits, margin, routes = drafters.mtp(reference, tokens, trace)
    seen = slice(len(prompt.tokens) - 1, None)
    both = np.minimum(margin, trace.margin[:-1])
    drafts, clear, taken = drafters.dspark(reference, tokens, trace, len(prompt.tokens) + np.arange(GENERATED))
    return {
        prompt.name: (log_softmax(trace.logits[:-1]), trace.margin[:-1], trace.routes[:-1]),
        f"{prompt.name}/draft": (log_softmax(logits[seen]), both[seen], routes[seen, None]),
        f"{prompt.name}/dspark": (log_softmax(drafts), clear, taken),
    }
