"""How fast a simulated replica is: published measurements of a real one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Recording:
    """What was measured of one replica, and where that is written."""

    name: str
    source: str
    seconds_per_token: tuple[tuple[int, float], ...]
    """Of one request, by the number of requests that run; ascending."""
    first_token: float
    """Seconds from a request to its first token while nothing else runs."""
    acceptance: float
    """Accepted / drafted tokens with one draft token a step."""
    max_num_seqs: int

    def step(self, running: int) -> float:
        """Return the seconds of one step, which gives each of `running` requests one token or two."""
        return self._token(max(1, min(running, self.max_num_seqs))) * (1 + self.acceptance)

    def _token(self, running: int) -> float:
        for (few, fast), (many, slow) in pairwise(self.seconds_per_token):
            if running <= many:
                return fast + (slow - fast) * (running - few) / (many - few)
        return self.seconds_per_token[-1][1]

    @property
    def tokens_per_second(self) -> float:
        """Of one replica when it is full."""
        return self.max_num_seqs / self._token(self.max_num_seqs)


RTX_PRO_6000_TP2 = Recording(
    name="Flash W4A16 + MTP, 2 x RTX PRO 6000, TP=2",
    source=(
        "model card of canada-quant/DeepSeek-V4-Flash-W4A16-FP8-MTP: random 256 in, 256 out, one draft token, a fork of vLLM, 2026-05. "
        "8.55 ms a token with 1 request is its TPOT; with 4 and 16 it is requests / output tokens a second (219.53 and 482.61), "
        "time to first token included; between them a straight line. First token: 155 ms, 2 x RTX PRO 6000 Max-Q, the card of LordNeel/DeepSeek-V4-Flash-Acti-MTP-W4A16-FP8"
    ),
    seconds_per_token=((1, 0.00855), (4, 4 / 219.53), (16, 16 / 482.61)),
    first_token=0.155,
    acceptance=0.71,
    max_num_seqs=16,
)
MEAN_TOKENS, MOST_TOKENS = 256, 512
"""Of an answer: exponentially distributed around the length of the recording, cut off at twice that."""
