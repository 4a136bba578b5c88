"""The drafters of the reference."""

import numpy as np

from ..v4_dspark import BLOCK_SIZE, LAYERS, NOISE, target_layers
from .attention import Attention, Ints, rms
from .reference import ReferenceModel, Trace
from .rounding import Floats
from .sizes import HC, WINDOW


def mtp(model: ReferenceModel, tokens: Ints, trace: Trace) -> tuple[Floats, Floats, Ints]:
    """
    Return logits, router margins and routes of the MTP head.

    Row i sees the target model's streams at token i and the token after it, and says what comes after that. Row 0 does
    not see its token: vLLM hides it in every MTP head. DeepSeek's own code does not, which changes nothing after the
    window.
    """
    p = model.p
    embedded = p["embed.weight"][tokens[1:]].astype(np.float64)
    embedded[0] = 0
    token = rms(embedded, p["mtp.0.enorm.weight"]) @ p["mtp.0.e_proj.weight"].T
    streams = rms(trace.streams[:-1], p["mtp.0.hnorm.weight"]) @ p["mtp.0.h_proj.weight"].T
    x, margin, routes = model.layer(streams + token[:, None, :], "mtp.0", 0, tokens[1:])
    return model.logits(x, "mtp.0.", "norm"), margin, routes


def dspark(model: ReferenceModel, tokens: Ints, trace: Trace, anchors: Ints) -> tuple[Floats, Floats, Ints]:
    """
    Return logits, router margins and routes of a DSpark drafter: BLOCK_SIZE rows for each anchor, a place in `tokens`.

    A block is the anchor and noise tokens. Its queries see each other and the window before the anchor, as `main_proj`
    makes it of the target model's layers. The Markov head adds what the token drafted before makes likely.
    """
    p = model.p
    layers = np.concatenate([trace.layers[number] for number in target_layers(model.d)], axis=-1)
    main = rms(layers @ p["mtp.0.main_proj.weight"].T, p["mtp.0.main_norm.weight"])
    blocks = np.full((len(anchors), BLOCK_SIZE), NOISE)
    blocks[:, 0] = tokens[anchors]
    positions = anchors[:, None] + np.arange(BLOCK_SIZE)

    def attend(attention: Attention, h: Floats) -> Floats:
        heads, _ = attention.queries(h, positions.ravel())
        own = attention.entries(h, positions.ravel()).reshape(*positions.shape, -1)
        context = attention.entries(main, np.arange(len(main)))
        out = []
        for anchor, queries, block in zip(anchors, heads.reshape(*positions.shape, *heads.shape[1:]), own, strict=True):
            seen = np.concatenate([context[max(anchor - WINDOW, 0) : anchor], block])
            out.append(attention.mixed(queries, seen, np.ones((BLOCK_SIZE, len(seen)), bool)))
        return attention.projected(np.concatenate(out), positions.ravel())

    x = np.repeat(p["embed.weight"][blocks.ravel()][:, None, :].astype(np.float64), HC, axis=1)
    margins, routes = [], []
    for number in range(LAYERS):
        x, margin, route = model.layer(x, f"mtp.{number}", 0, blocks.ravel(), attend)
        margins.append(margin)
        routes.append(route)
    logits = model.logits(x, f"mtp.{LAYERS - 1}.", "norm").reshape(*blocks.shape, -1)
    markov = [p[f"mtp.{LAYERS - 1}.markov_head.markov_{part}.weight"].astype(np.float64) for part in ("w1", "w2")]
    before = blocks[:, 0]
    for place in range(BLOCK_SIZE):
        logits[:, place] += markov[0][before] @ markov[1].T
        before = logits[:, place].argmax(axis=-1)
    return logits.reshape(-1, logits.shape[-1]), np.min(margins, axis=0), np.stack(routes, axis=1)
