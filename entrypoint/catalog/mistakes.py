"""Say what is wrong with a profile file, and what to write instead."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from ..errors import listed, nearest
from ..validation import reason
from .schema import Constraint, DefaultModel, DraftTokensByLoad, Measured, ModelDrafter, When

_INNER: dict[str, type[BaseModel]] = {
    "when": When,
    "refuse": Constraint,
    "measured": Measured,
    "default-model": DefaultModel,
    "drafter": ModelDrafter,
    "k-by-load": DraftTokensByLoad,
}


_KINDS = ("str", "int", "float", "bool", "list", "dict", "[key]")
"""What pydantic adds to the place of a value that may be one of several kinds, and to that of a key."""


def sentence(file: str, model: type[BaseModel], error: ValidationError) -> str:
    """Return what is wrong with a file, and what to write instead."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if part not in _KINDS)
    if first["type"] != "extra_forbidden":
        value = "" if first["loc"][-1] == "[key]" else f" = {first['input']!r}"
        return f"{file}: {where}{value} is not valid: {reason(first['msg'])}."
    *tables, key = first["loc"]
    model = _INNER[str(tables[0])] if tables else model
    keys = [field.alias or name for name, field in model.model_fields.items()]
    hint = nearest(str(key), keys)
    flags = " Put vLLM's flags under [flags]." if not hint and not tables else ""
    return f"{file}: unknown key {where!r}{hint}. Valid keys: {listed(keys)}.{flags}"
