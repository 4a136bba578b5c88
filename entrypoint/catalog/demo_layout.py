"""Which layout of `demo/` stores a model as its artifact does. Pure."""

from __future__ import annotations

_LAYOUTS = {
    ("unquantized", "mtp", "unquantized"): "bf16",
    ("fp8-mxfp4", "mtp", "fp8-mxfp4"): "native",
    ("w4a16", "mtp", "unquantized"): "w4a16",
    ("w4a16", "mtp", "w4a16"): "acti",
    ("nvfp4", "mtp", "unquantized"): "nvfp4",
    ("modelopt-nvfp4", "mtp", "fp8-mxfp4"): "flash-nvfp4",
    ("fp8-mxfp4", "dspark", "fp8-mxfp4"): "flash-0731",
    ("modelopt-nvfp4", "dspark", "fp8-mxfp4"): "flash-0731-nvfp4",
}
"""By scheme of the target model, kind of drafter, and scheme of the drafter."""
_PRO = {"flash-nvfp4": "pro"}
"""Pro's own: its quantization with an MTP head is another one's than that of Flash, with less of a description."""


def layout_of(architecture: str, scheme: str, drafter: str, draft_scheme: str) -> str | None:
    """Return the name of the layout; None where no checkpoint of it can be written."""
    layout = _LAYOUTS.get((scheme, drafter, draft_scheme))
    return _PRO.get(layout or "", layout) if architecture == "deepseek-v4-pro" else layout
