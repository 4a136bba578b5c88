"""What the replica under test is: the name to ask it by, its context, and which of our models it serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .. import results
from ..catalog.catalog import Catalog
from ..client.endpoint import Endpoint, NoAnswer


@dataclass(frozen=True)
class Served:
    """
    `name` to ask by, `context` in tokens, `model` of `dsv4 profiles` or None where it is not known.

    `replica` is what /plan said (`receipts.of_replica`), and `skipped` why it is empty.
    """

    name: str
    context: int
    model: str | None
    replica: dict[str, Any] = field(default_factory=dict)
    skipped: str | None = None


def look(place: Endpoint, catalog: Catalog, model: str | None = None) -> Served:
    """Ask a replica what it serves; `model` is what the user says it is. Raise NoAnswer."""
    first = place.listing()[0]
    if first.max_model_len is None:
        raise NoAnswer(
            f"{place.url}/v1/models: no model with a max_model_len, as vLLM lists it; name its server with --url."
        )
    replica: dict[str, Any] = {}
    skipped = None if place.health else "no health server is named (--health)"
    if place.health:
        try:
            replica = results.of_replica(place.health, place.key)
        except NoAnswer as error:
            skipped = str(error)
    known = model or replica.get("choices", {}).get("model-name")
    ours = None if known else catalog.model_of(first.root or "")
    return Served(first.id, first.max_model_len, ours.name if ours else known, replica, skipped)
