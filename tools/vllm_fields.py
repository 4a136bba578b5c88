"""
What one field of a vLLM config class accepts: type, choices, bounds, and the keys below it.

Types are named as `dsv4` names them: bool, int, float, str, json (a JSON object or array), or a list of those.
"""

from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from importlib import import_module
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

Facts = dict[str, Any]

ENGINE_ONLY = {"target_model_config", "target_parallel_config", "draft_model_config", "draft_parallel_config"}


def annotation(cls: Any, field: str) -> Any:
    """Return a field's type as pydantic resolved it."""
    return cls.__pydantic_fields__[field].annotation


def members(hint: Any) -> Iterator[Any]:
    """Yield the alternatives of a type, unions taken apart."""
    if get_origin(hint) in (Union, UnionType):
        for alternative in get_args(hint):
            yield from members(alternative)
    elif get_origin(hint) is Annotated:
        yield from members(get_args(hint)[0])
    else:
        yield hint


def config_class(hint: Any) -> Any:
    """Return the config class among the alternatives of a type, or None."""
    return next((member for member in members(hint) if hasattr(member, "__pydantic_fields__")), None)


def literal_values(hints: list[Any]) -> list[str]:
    """Return the values of the Literal alternatives, as strings."""
    return sorted({str(value) for hint in hints if get_origin(hint) is Literal for value in get_args(hint)})


def type_name(hints: list[Any]) -> str | list[str]:
    """Return the type, or the list of types, that stands for these alternatives."""
    names = [scalar.__name__ for scalar in (bool, int, float, str) if scalar in hints]
    literals = [value for hint in hints if get_origin(hint) is Literal for value in get_args(hint)]
    names += [type(value).__name__ for value in literals]
    composite = (hint for hint in hints if get_origin(hint) not in (None, Literal) or is_dataclass(hint))
    names += ["json" for hint in [*composite, *(hint for hint in hints if hint in (dict, list))]]
    distinct = list(dict.fromkeys(names)) or ["str"]
    return distinct[0] if len(distinct) == 1 else distinct


def bounds(metadata: list[Any], whole: bool) -> Facts:
    """Return the limits of a number: `min` and `max` are allowed values, `above` and `below` are not."""
    facts: Facts = {}
    for constraint in metadata:
        for key, attribute in (("min", "ge"), ("max", "le"), ("above", "gt"), ("below", "lt")):
            if (limit := getattr(constraint, attribute, None)) is not None:
                facts[key] = limit
    if whole and "above" in facts:
        facts["min"] = facts.pop("above") + 1
    return facts


def accepts(cls: Any, field: str, value: str | int) -> bool:
    """Tell whether a config class takes this value; complaints about other fields do not count."""
    try:
        cls(**{field: value})
    except import_module("pydantic").ValidationError as error:
        return all(problem["loc"][:1] != (field,) for problem in error.errors())
    except KeyError:  # vLLM looks enum members up by name in its validators
        return False
    return True


def enum_facts(cls: Any, field: str, enum: Any) -> Facts:
    """Return the spellings of an enum's members that a field takes: names, values, or both."""
    spellings = [value for member in enum for value in (member.name, member.value) if isinstance(value, str | int)]
    taken = [value for value in ["auto", *spellings] if accepts(cls, field, value)]
    strings = [value for value in taken if isinstance(value, str)]
    ignorecase = any(word.isupper() for word in strings) and all(accepts(cls, field, word.lower()) for word in strings)
    distinct = {str(value).lower() if ignorecase else str(value): str(value) for value in taken}
    types = sorted({type(value).__name__ for value in taken if type(value) in (str, int)})
    facts: Facts = {"choices": sorted(distinct.values()), "type": types[0] if len(types) == 1 else types}
    return facts | ({"ignorecase": True} if ignorecase else {})


def field_facts(cls: Any, field: str) -> Facts:
    """Return type, choices (`known`: names that vLLM ships, others allowed) and bounds of one field."""
    hints = list(members(annotation(cls, field)))
    facts: Facts = {"type": type_name(hints)} | bounds(cls.__pydantic_fields__[field].metadata, int in hints)
    if enum := next((hint for hint in hints if isinstance(hint, type) and issubclass(hint, Enum)), None):
        facts |= enum_facts(cls, field, enum)
    elif values := literal_values(hints):
        facts["known" if str in hints else "choices"] = values
    return facts


def object_facts(cls: Any) -> Facts:
    """Return the keys of a config class that a user may set, nested classes included, and whether others pass."""
    keys: Facts = {}
    for field, info in cls.__pydantic_fields__.items():
        if info.init is False or field in ENGINE_ONLY:
            continue
        keys[field] = field_facts(cls, field)
        if nested := config_class(info.annotation):
            keys[field] |= object_facts(nested)
    return {"keys": keys} | ({} if cls.__pydantic_config__.get("extra") == "forbid" else {"extras": True})
