"""What an engine answers, as one table a prompt: a row a position, a column a token."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float32]
Rows = dict[str, NDArray[Any]]
"""By the prompt's name natural logprobs, NaN where the engine returned none: row i follows token i.

`NAME/draft` are the drafter's: row j was computed when j tokens had been generated after the first one; NaN where an
accepted draft left it out. `NAME/dspark` are a DSpark drafter's, with several rows for each.
"""


def answered(drafts: Sequence[Table], tokens: Sequence[int], count: int = 1) -> Table:
    """
    Put the drafts of each step, `count` tokens a step, at the place where it was made.

    With more than one, a place holds the drafts of the step one after the other.
    """
    out = np.full((len(tokens), count, len(drafts[0])), np.nan, np.float32)
    place = 0
    for first in range(0, len(drafts) - count + 1, count):
        if place >= len(tokens):
            break
        step = np.stack(drafts[first : first + count])
        top = step.max(axis=-1, keepdims=True)
        out[place] = step - top - np.log(np.exp(step - top).sum(axis=-1, keepdims=True))
        drafted, came = step.argmax(axis=-1).tolist(), tokens[place + 1 : place + 1 + count]
        place += 1 + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(drafted, came, strict=False)))
    return out.reshape(-1, len(drafts[0]))
