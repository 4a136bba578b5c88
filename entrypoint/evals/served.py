"""Identify the replica under test: its served name, its context, and which of our models it serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..catalog.catalog import Catalog
from ..client.endpoint import Endpoint
from ..client.errors import RequestFailed, Unreachable


@dataclass(frozen=True)
class ServedReplica:
    """
    The served `name`, the `context` in tokens, and the `model` of `dsv4 profiles`, None where unknown.

    `replica` is the answer of /plan, and `skipped` the reason why it is empty.
    """

    name: str
    context: int
    model: str | None
    replica: dict[str, Any] = field(default_factory=dict)
    skipped: str | None = None


def identify(endpoint: Endpoint, catalog: Catalog, model: str | None = None) -> ServedReplica:
    """Ask a replica what it serves; `model` is the user's own answer. Raise RequestFailed."""
    first = endpoint.models()[0]
    if first.max_model_len is None:
        raise Unreachable(
            f"{endpoint.url}/v1/models: no model has a max_model_len, which vLLM lists; name vLLM's server with --url."
        )
    replica: dict[str, Any] = {}
    skipped = None if endpoint.health else "no health server is named (--health)"
    if endpoint.health:
        try:
            replica = endpoint.plan().to_json()
        except RequestFailed as error:
            skipped = str(error)
    known = model or replica.get("choices", {}).get("model-name")
    ours = None if known else catalog.model_of(first.root or "")
    return ServedReplica(first.id, first.max_model_len, ours.name if ours else known, replica, skipped)
