"""The tables of profile-keys.md: what a profile file may hold, from the classes that read it."""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, BeforeValidator

from dsv4_serve.entrypoint import supervision_settings
from dsv4_serve.entrypoint.catalog.catalog import SHIPPED
from dsv4_serve.entrypoint.catalog.schema import (
    Base,
    Constraint,
    DefaultModel,
    DraftTokensByLoad,
    Hardware,
    Measured,
    Model,
    Profile,
    Root,
    When,
)
from dsv4_serve.entrypoint.supervision_settings import Gate, Supervise
from tools.reference.attributes import described
from tools.reference.markdown import code, prose, table

FILES: Mapping[str, tuple[type[BaseModel], str]] = {
    "base": (Root, "base.toml"),
    "profile": (Profile, "*.toml"),
    "model": (Model, "models/*.toml"),
    "hardware": (Hardware, "hardware/*.toml"),
}
"""Kinds of file with keys of their own, and where the shipped ones lie; a set of NCCL variables has none."""
BLOCKS: Mapping[str, type[BaseModel]] = {
    "when": When,
    "refuse": Constraint,
    "measured": Measured,
    "default-model": DefaultModel,
    "k-by-load": DraftTokensByLoad,
}
SETTINGS: Mapping[str, type[BaseModel]] = {"gate": Gate, "supervise": Supervise}
HEAD = ("key", "type", "default", "what it is", "example")
LONGEST = 72
"""Characters of an example; what is longer is cut."""
_TABLES = {"flags", "env", *SETTINGS}
_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "table",
}


def tables() -> dict[str, str]:
    """Return a table for every kind of file, of block, and of setting."""
    made = {"every file": table(HEAD, rows(Base, _examples("**/*.toml")))}
    for name, (kind, files) in FILES.items():
        own = {key: None for key in keys(kind) if key not in keys(Base)}
        made[f"{name} file"] = table(HEAD, (row for row in rows(kind, _examples(files)) if row[0].strip("`") in own))
    for name, kind in BLOCKS.items():
        made[f"{name} block"] = table(HEAD, rows(kind, _examples("**/*.toml", name), f"{name}."))
    for name, kind in SETTINGS.items():
        made[f"{name} settings"] = table((*HEAD[:-1], "environment"), _settings(name, kind))
    return made


def keys(kind: type[BaseModel]) -> dict[str, str]:
    """Return the keys of a table as files spell them, with what each is."""
    about = described(kind)
    return {field.alias or name: about.get(name, "") for name, field in kind.model_fields.items()}


def rows(kind: type[BaseModel], examples: Mapping[str, str], table: str = "") -> Iterator[tuple[str, ...]]:
    """Yield each key of a table with its type, its default, what it is, and an example of a shipped file."""
    required = _schema(kind).get("required", ())
    for key, about in keys(kind).items():
        example = f"{key} = {examples[key]}" if key in examples else ""
        if key in _TABLES:
            example = f"[{table}{key}]"
        elif key in BLOCKS:
            example = f"[[{key}]]"
        default = code(default_of(kind, key)) if default_of(kind, key) else ""
        yield (
            code(key),
            type_of(kind, key),
            "(required)" if key in required else default,
            prose(about),
            code(example) if example else "",
        )


def type_of(kind: type[BaseModel], key: str) -> str:
    """Return the type of a key in words, with its bounds."""
    schema = _schema(kind)
    text = _type(schema["properties"][key])
    (field,) = (field for name, field in kind.model_fields.items() if (field.alias or name) == key)
    one = any(isinstance(each, BeforeValidator) for each in field.metadata)  # which makes a list of it
    return text.replace("list: ", "") + " or a list" if one else text


def default_of(kind: type[BaseModel], key: str) -> str:
    """Return the default of a key as TOML writes it; an empty text where there is none."""
    (value,) = (field.default for name, field in kind.model_fields.items() if (field.alias or name) == key)
    if isinstance(value, BaseModel):  # of a table whose keys have defaults of their own
        return ""
    return _toml(value) if value not in (None, "", [], {}) and not repr(value).startswith("Pydantic") else ""


@functools.cache
def _schema(kind: type[BaseModel]) -> dict[str, Any]:
    return kind.model_json_schema()


def _settings(group: str, kind: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    for key, about in keys(kind).items():
        variable = supervision_settings.variable_of(f"{group}.{key}")
        shown = code(f"{variable}_PHASE" if key == "stall" else variable)
        yield (
            code(key),
            type_of(kind, key),
            code(default_of(kind, key) or ("[]" if type_of(kind, key).startswith("list") else "{}")),
            prose(about),
            shown,
        )


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return "table"
    if "enum" in schema:
        return " or ".join(code(json.dumps(value)) for value in schema["enum"])
    if "anyOf" in schema:
        kinds = [_type(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if schema.get("type") == "array":
        inner = _type(schema.get("items", {}))
        return "list of tables" if inner == "table" else f"list: {inner}"
    return _WORDS.get(schema.get("type", ""), "any") + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    low = f" above {schema['exclusiveMinimum']:g}" if "exclusiveMinimum" in schema else ""
    low = f" from {schema['minimum']:g}" if "minimum" in schema else low
    return low + (f" to {schema['maximum']:g}" if "maximum" in schema else "")


def _examples(files: str, block: str = "") -> dict[str, str]:
    """Return a value of each key in the shipped files, or in their blocks of one name; those of demos come last."""
    found: dict[str, str] = {}
    for path in sorted(SHIPPED.glob(files), key=lambda path: (path.stem.startswith(("demo", "cpu")), path)):
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        for own in content.get(block, ()) if block else [content]:
            for key, value in own.items():
                found.setdefault(key, _cut(_toml(value)))
    return found


def _cut(text: str) -> str:
    if len(text) > LONGEST and "qualification/" in text:
        return ""  # half a path names nothing
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_toml(inner)}' for key, inner in value.items())}}}"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
