"""Remedies and phrases that several checks of checkpoints share."""

from __future__ import annotations

from collections.abc import Iterable

FETCH = "fetch the checkpoint again with `dsv4 weights fetch`, which resumes an unfinished download"
ORIGINAL = "restore config.json from the original repository: `save_pretrained` of transformers rewrites it"
AS_ITSELF = "pass the folder to --model without NAME=, so that the model is identified by its files"
PATCH = "run `dsv4 patch apply`"
NO_DRAFT = "set NUM_SPECULATIVE_TOKENS=0 to serve without the draft head"


def some(names: Iterable[str], limit: int = 3) -> str:
    """Return the first of several names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - limit:,} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
