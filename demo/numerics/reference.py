"""DeepSeek-V4 in float64, from its published formulas: what a random checkpoint answers.

The reference shares no code with vLLM and reads no checkpoint: it takes the numbers from `weights`. It computes a whole
sequence at once and rounds only where the engine's cache does.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..v4_tensors import dense
from ..v4_weights import Dims
from . import weights
from .attention import Attention, Ints, Params, rms
from .rounding import Floats
from .sizes import HC

EPS, ROUTED_SCALE, SWIGLU_LIMIT, SINKHORN = 1e-6, 1.5, 10.0, 20
_KEPT = 12


@dataclass(frozen=True)
class Trace:
    """
    What one pass computed, per position.

    `streams` are the residual streams after the last layer; `layers` the mean of the streams after each layer; `margin`
    is how clearly the closest router chose (between the last expert taken and the first left out); `routes` are the
    experts taken, [position, layer, expert].
    """

    logits: Floats
    streams: Floats
    layers: list[Floats]
    margin: Floats
    routes: Ints


def drawn(parameters: Iterable[weights.Parameter], draw: Callable[[weights.Parameter], Any]) -> dict[str, NDArray[Any]]:
    """Return every parameter's numbers by name, in float64; a matrix is [out, in]."""
    return {_name(parameter): _numbers(parameter, draw) for parameter in parameters}


class DrawnOnDemand(Mapping[str, NDArray[Any]]):
    """The same as `drawn`, each drawn when it is asked for: all of `flash` would take 23 GB. Few are kept."""

    def __init__(self, parameters: Iterable[weights.Parameter], draw: Callable[[weights.Parameter], Any]) -> None:
        self._named = {_name(parameter): parameter for parameter in parameters}
        self._kept = lru_cache(_KEPT)(lambda name: _numbers(self._named[name], draw))

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._kept(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)


def _name(parameter: weights.Parameter) -> str:
    return f"{parameter.name}.weight" if isinstance(parameter, weights.Matrix) else parameter.name


def _numbers(parameter: weights.Parameter, draw: Callable[[weights.Parameter], Any]) -> NDArray[Any]:
    value = draw(parameter)
    return dense(value).astype(np.float64) if isinstance(parameter, weights.Matrix) else value


class ReferenceModel:
    """The target model; `mtp` and `dspark` are in `drafters`."""

    def __init__(self, params: Params, d: Dims) -> None:
        self.p, self.d = params, d

    def trace(self, tokens: Ints) -> Trace:
        """Compute logits of every position of one sequence."""
        x = np.repeat(self.p["embed.weight"][tokens][:, None, :].astype(np.float64), HC, axis=1)
        margins, routes, layers = [], [], []
        for number, ratio in enumerate(self.d.ratios):
            x, margin, route = self.layer(x, f"layers.{number}", ratio, tokens)
            margins.append(margin)
            routes.append(route)
            layers.append(x.mean(axis=1))
        return Trace(self.logits(x, "", "norm"), x, layers, np.min(margins, axis=0), np.stack(routes, axis=1))

    def layer(
        self,
        x: Floats,
        prefix: str,
        ratio: int,
        tokens: Ints,
        attend: Callable[[Attention, Floats], Floats] | None = None,
    ) -> tuple[Floats, Floats, Ints]:
        """
        Return the streams after one layer, how clearly its router chose, and which experts.

        `attend` replaces attention over the sequence.
        """
        attention, attend = Attention(self.p, self.d, f"{prefix}.attn", ratio), attend or Attention.sequence
        norm = self.p[f"{prefix}.attn_norm.weight"]
        x = self.connected(x, f"{prefix}.hc_attn", lambda h: attend(attention, rms(h, norm)))
        chosen: list[tuple[Floats, Ints]] = []

        def experts(h: Floats) -> Floats:
            out, margin, route = self.experts(rms(h, self.p[f"{prefix}.ffn_norm.weight"]), f"{prefix}.ffn", tokens)
            chosen.append((margin, route))
            return out

        x = self.connected(x, f"{prefix}.hc_ffn", experts)
        return x, *chosen[0]

    def connected(self, x: Floats, name: str, inside: Callable[[Floats], Floats]) -> Floats:
        """Hyper connections: gather the streams into one, run `inside`, mix the streams and add its output to each."""
        scale, base = self.p[f"{name}_scale"], self.p[f"{name}_base"]
        mixes = rms(x.reshape(len(x), -1)) @ self.p[f"{name}_fn"].T.astype(np.float64)
        before = sigmoid(mixes[:, :HC] * scale[0] + base[:HC]) + EPS
        after = 2 * sigmoid(mixes[:, HC : 2 * HC] * scale[1] + base[HC : 2 * HC])
        across = doubly_stochastic((mixes[:, 2 * HC :] * scale[2] + base[2 * HC :]).reshape(-1, HC, HC))
        out = inside(gathered(before, x))
        return across.transpose(0, 2, 1) @ x + after[:, :, None] * out[:, None, :]

    def logits(self, x: Floats, prefix: str, norm: str) -> Floats:
        """Gather the streams and multiply with the head, which drafters share."""
        name = f"{prefix}hc_head"
        mixes = rms(x.reshape(len(x), -1)) @ self.p[f"{name}_fn"].T.astype(np.float64)
        gates = sigmoid(mixes * self.p[f"{name}_scale"] + self.p[f"{name}_base"]) + EPS
        hidden = rms(gathered(gates, x), self.p[f"{prefix}{norm}.weight"])
        return self.linear(hidden, "head")

    def experts(self, h: Floats, prefix: str, tokens: Ints) -> tuple[Floats, Floats, Ints]:
        """Return the experts' output, how clearly the router chose, and which experts it chose."""
        affinity = np.sqrt(softplus(h @ self.p[f"{prefix}.gate.weight"].T.astype(np.float64)))
        table = self.p.get(f"{prefix}.gate.tid2eid")
        if table is not None:
            route, margin = table[tokens], np.full(len(h), np.inf)
        else:
            biased = affinity + self.p[f"{prefix}.gate.bias"]
            order = np.argsort(-biased, axis=1, kind="stable")
            ranked = np.take_along_axis(biased, order, axis=1)
            route, margin = order[:, : self.d.top_k], ranked[:, self.d.top_k - 1] - ranked[:, self.d.top_k]
        share = np.take_along_axis(affinity, route, axis=1)
        share = ROUTED_SCALE * share / share.sum(axis=1, keepdims=True)
        out = self.mlp(h, f"{prefix}.shared_experts")
        for expert in np.unique(route):
            rows, places = np.nonzero(route == expert)
            out[rows] += share[rows, places][:, None] * self.mlp(h[rows], f"{prefix}.experts.{expert}")
        return out, margin, route

    def mlp(self, h: Floats, prefix: str) -> Floats:
        """SwiGLU with a limit."""
        gate = np.minimum(self.linear(h, f"{prefix}.w1"), SWIGLU_LIMIT)
        up = np.clip(self.linear(h, f"{prefix}.w3"), -SWIGLU_LIMIT, SWIGLU_LIMIT)
        return self.linear(gate * sigmoid(gate) * up, f"{prefix}.w2")

    def linear(self, h: Floats, name: str) -> Floats:
        """Multiply with an expert's weight or with the head."""
        return h @ self.p[f"{name}.weight"].T.astype(np.float64)


def gathered(gates: Floats, x: Floats) -> Floats:
    """Add the streams up by their gates."""
    return (gates[:, None, :] @ x)[:, 0]


def sigmoid(x: Floats) -> Floats:
    """Logistic function."""
    return 1 / (1 + np.exp(-x))


def softplus(x: Floats) -> Floats:
    """log(1 + exp(x))."""
    return np.logaddexp(0, x)


def log_softmax(x: Floats) -> Floats:
    """Natural logarithms of the probabilities."""
    top = x.max(axis=-1, keepdims=True)
    return x - top - np.log(np.exp(x - top).sum(axis=-1, keepdims=True))


def doubly_stochastic(x: Floats) -> Floats:
    """Sinkhorn's iterations on exp(x): columns and rows sum to one in turn."""
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    x = x / x.sum(axis=-1, keepdims=True) + EPS
    x = x / (x.sum(axis=-2, keepdims=True) + EPS)
    for _ in range(SINKHORN - 1):
        x = x / (x.sum(axis=-1, keepdims=True) + EPS)
        x = x / (x.sum(axis=-2, keepdims=True) + EPS)
    return x
