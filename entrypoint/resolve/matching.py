"""Whether a plan is what a `[[refuse]]` block speaks against. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any

from ..catalog.schema import Constraint
from ..plan import Setting, nested, plain
from .select import Selection


def matching(
    selection: Selection, flags: Mapping[str, Setting], env: Mapping[str, Setting]
) -> Callable[[Constraint], bool]:
    """Return what tells whether a rule matches the plan."""
    selected, tree = selection.names(), nested(plain(flags))
    served = str(flags["model"].value) if "model" in flags else ""

    def matches(rule: Constraint) -> bool:
        return (
            all(selected[key] in allowed for key, allowed in rule.given().items())
            and selection.hardware.name not in rule.except_hardware
            and (not rule.drafter or selection.drafter.kind in rule.drafter)
            and (not rule.model_id or any(fnmatch.fnmatch(served.lower(), glob.lower()) for glob in rule.model_id))
            and all(name in env and _like(_packed(env[name].value), str(value)) for name, value in rule.env.items())
            and (not rule.flags or _hold(tree, rule.flags))
        )

    return matches


def _hold(tree: Mapping[str, Any], conditions: Mapping[str, Any]) -> bool:
    return all(_holds(tree, name, value) or _off(tree, name, value) for name, value in conditions.items())


def _off(tree: Mapping[str, Any], name: str, condition: Any) -> bool:
    """Tell whether a condition asks for a switch that is off, and the plan does not name it."""
    return condition is False and name not in tree


def _packed(value: Any) -> str:
    """Return a variable's value without blanks: PyTorch skips them in its own."""
    return "".join(str(value).split())


def _like(value: Any, pattern: str) -> bool:
    """Tell whether a value that is set matches a glob, regardless of case."""
    return value not in (None, "") and fnmatch.fnmatchcase(str(value).lower(), pattern.lower())


def _holds(tree: Mapping[str, Any], name: str, condition: Any) -> bool:
    """Return whether a setting has a condition's value, or one of its list; tables are compared key by key."""
    value = tree.get(name)
    if isinstance(condition, dict):
        return isinstance(value, dict) and all(_holds(value, key, inner) for key, inner in condition.items())
    if isinstance(condition, str) and "*" in condition:
        return _like(value, condition)
    return value in condition if isinstance(condition, list) else value == condition
