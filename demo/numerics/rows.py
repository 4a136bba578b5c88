"""What an engine answers, as one table a prompt: a row a position, a column a token."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float32]
Rows = dict[str, NDArray[Any]]
"""By the prompt's name natural logprobs, NaN where the engine returned none: row i follows token i.

`NAME/draft` are the drafter's: row j was computed when j tokens had been generated after the first one; NaN where an
accepted draft left it out.
"""


def answered(drafts: Sequence[Table], tokens: Sequence[int]) -> Table:
    """Put each step's draft, one token a step, at the place where it was made."""
    out = np.full((len(tokens), len(drafts[0])), np.nan, np.float32)
    place = 0
    for logits in drafts:
        if place >= len(tokens):
            break
        top = logits.max()
        out[place] = logits - top - np.log(np.exp(logits - top).sum())
        accepted = place + 1 < len(tokens) and int(logits.argmax()) == tokens[place + 1]
        place += 1 + accepted
    return out
