"""Describe a pydantic validation error in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def first_error(error: ValidationError) -> tuple[str, str]:
    """Return where the first error is (`rows.0.batch`, empty for the whole) and what it is; unknown keys go first."""
    errors = error.errors(include_url=False)
    first = min(errors, key=lambda item: item["type"] != "extra_forbidden")  # a misspelt key explains a missing one
    return ".".join(map(str, first["loc"])), reason(first["msg"])


def reason(message: str) -> str:
    """Return a message of pydantic as it goes on a sentence; patterns and names in it keep their case."""
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def sentence(error: ValidationError) -> str:
    """Return the first error as `rows.0.batch: field required`."""
    return ": ".join(filter(None, first_error(error)))
