"""Describe a pydantic validation error in one sentence, and check texts so that it says in words what to write."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import AfterValidator, ValidationError


def text_like(pattern: str, instead: str) -> AfterValidator:
    """Return a validator of texts that match `pattern` in full; others fail with `instead`: what to write."""
    from pydantic import AfterValidator

    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(instead)
        return text

    return AfterValidator(check)


def first_error(error: ValidationError) -> tuple[str, str]:
    """Return where the first error is (`rows.0.batch`, empty for the whole) and what it is; unknown keys go first."""
    errors = error.errors(include_url=False)
    first = min(errors, key=lambda item: item["type"] != "extra_forbidden")  # a misspelt key explains a missing one
    return ".".join(map(str, first["loc"])), reason(first["msg"])


def reason(message: str) -> str:
    """Return a message of pydantic as it goes on a sentence; names in it keep their case."""
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def sentence(error: ValidationError) -> str:
    """Return the first error as `rows.0.batch: field required`."""
    return ": ".join(filter(None, first_error(error)))
