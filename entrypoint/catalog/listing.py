"""What the product offers: the list of profiles."""

from __future__ import annotations

from typing import Any

from .catalog import Library


def listing(library: Library) -> list[dict[str, Any]]:
    """Return each profile: context in tokens, requests, tensor parallel sizes, models, hardware, measured figures."""
    entries = []
    for name in library.names("profile"):
        sheet = library.profile(name, "")
        flags = sheet.flags()
        entries.append(
            {
                "name": name,
                "about": sheet.get("about"),
                "context": flags.get("max-model-len"),
                "requests": sheet.get("requests") or flags.get("max-num-seqs"),
                "tensor-parallel-sizes": sheet.get("tensor_parallel_sizes"),
                "models": sheet.get("models"),
                "hardware": sheet.get("hardware"),
                "measured": [m.model_dump(by_alias=True) for m in sheet.own.measured],
            }
        )
    return entries
