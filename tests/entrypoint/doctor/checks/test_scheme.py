"""When the names in quantization_config have to match the routed experts."""

from __future__ import annotations

from typing import Any

import pytest

from dsv4_serve.entrypoint.checkpoint.layout import SCHEMES
from dsv4_serve.entrypoint.doctor.checks import scheme

BY_NAME = {scheme.name: scheme for scheme in SCHEMES}
OTHER, EXPERTS = ["re:.*attn.*"], [r"re:.*experts\.\d+\.(w1|w2|w3)$"]


@pytest.mark.parametrize(
    ("names", "stored", "problem"),
    [
        (OTHER, "w4a16", True),
        (OTHER, "nvfp4", True),
        (EXPERTS, "w4a16", False),
        ([], "w4a16", False),  # nothing is quantized by its name
        (OTHER, "", False),  # no experts, or none that are known
        (OTHER, "fp8-mxfp4", False),  # the other formats ask for no names
        (OTHER, "modelopt-nvfp4", False),
        (OTHER, "fp8", False),
        (OTHER, "unquantized", False),
    ],
)
def test_experts_have_to_be_named_where_names_decide_what_is_quantized(
    monkeypatch: pytest.MonkeyPatch, names: list[str], stored: str, problem: bool
) -> None:
    monkeypatch.setattr(scheme, "targets", lambda _: names)
    monkeypatch.setattr(scheme.layout, "scheme", lambda *_: BY_NAME.get(stored))
    nothing: Any = None
    assert bool(scheme.experts_targeted(nothing, nothing)) is problem
