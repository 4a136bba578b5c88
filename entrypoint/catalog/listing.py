"""The list of profiles that `dsv4 profiles` prints."""

from __future__ import annotations

from typing import Any

from . import community
from .catalog import Catalog


def listing(catalog: Catalog) -> list[dict[str, Any]]:
    """Return each profile: context in tokens, requests, sizes, models, hardware, our figures, and those of others."""
    entries = []
    for name in catalog.names("profile"):
        profile = catalog.profile(name, "")
        flags = profile.flags()
        entries.append(
            {
                "name": name,
                "about": profile.get("about"),
                "context": flags.get("max-model-len"),
                "requests": profile.get("requests") or flags.get("max-num-seqs"),
                "tensor-parallel-sizes": profile.get("tensor_parallel_sizes"),
                "models": profile.get("models"),
                "hardware": profile.get("hardware"),
                "measured": [m.model_dump(by_alias=True) for m in profile.own.measured],
                "community": community.of(community.read(), profile=name),
            }
        )
    return entries
