"""The drafters of the reference."""

import numpy as np

from .attention import Ints, rms
from .reference import ReferenceModel, Trace
from .rounding import Floats


def mtp(model: ReferenceModel, tokens: Ints, trace: Trace) -> tuple[Floats, Floats, Ints]:
    """
    Return logits, router margins and routes of the MTP head.

    Row i sees the target model's streams at token i and the token after it, and says what comes after that.
    """
    p = model.p
    token = rms(p["embed.weight"][tokens[1:]].astype(np.float64), p["mtp.0.enorm.weight"]) @ p["mtp.0.e_proj.weight"].T
    streams = rms(trace.streams[:-1], p["mtp.0.hnorm.weight"]) @ p["mtp.0.h_proj.weight"].T
    x, margin, routes = model.layer(streams + token[:, None, :], "mtp.0", 0, tokens[1:])
    return model.logits(x, "mtp.0.", "norm"), margin, routes
