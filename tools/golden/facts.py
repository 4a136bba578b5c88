"""
Facts, each listed once: the lines of an answer of `explain` or `fit`, and for which combinations they hold. Pure.

Combinations of profile, model, hardware and size are written as products such as `profile 524k 640k, tp 4`.
"""

from __future__ import annotations

import functools
import itertools
import json
import operator
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

AXES = ("profile", "model", "hardware", "tp")
Combination = tuple[str, ...]
Product = tuple[tuple[str, ...], ...]
"""The values on each axis; an empty one is the whole axis."""


def of_plan(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield the facts in the JSON of `explain`, each as one line or a few, with the order of its lists and keys."""
    others = set(answer) - {"argv", "env", "settings"}
    yield from (f"a key of its own: {key}" for key in sorted(others))
    for name, setting in answer["settings"].items():
        yield _setting(name, **setting)
    yield from _order("settings", list(answer["settings"]))
    yield from (f"env {name}={value}" for name, value in answer["env"].items())
    yield from _order("env", list(answer["env"]))
    flags = list(_by_flag(answer["argv"]))
    yield from (f"argv {shlex.join(arguments)}" for arguments in flags)
    yield from _order("argv", ["" if arguments[0] == "vllm" else arguments[0] for arguments in flags])


def _setting(name: str, *, value: Any, origin: str, overridden: Sequence[Mapping[str, Any]]) -> str:
    replaced = "".join(f"\n    over {_value(**setting)}" for setting in overridden)
    return f"{name} = {_value(value, origin)}{replaced}"


def _value(value: Any, origin: str) -> str:
    return f"{json.dumps(value, ensure_ascii=False)}  # {origin}"


def _order(what: str, names: Sequence[str]) -> Iterator[str]:
    """Yield each pair of neighbours; together they are the order."""
    for name, following in itertools.pairwise(names):
        yield f"order of {what}: {name or 'the model'}, {following}"


def _by_flag(argv: Sequence[str]) -> Iterator[list[str]]:
    arguments: list[str] = []
    for word in argv:
        if word.startswith("--") and arguments:
            yield arguments
            arguments = []
        arguments.append(word)
    yield arguments


def of_fit(answer: Mapping[str, Any]) -> str:
    """Return the facts in the JSON of `fit`: the figures in one line, each advice in a line of its own."""
    figures = ", ".join(f"{name} {json.dumps(value)}" for name, value in answer.items() if name != "advice")
    advice = [", ".join(f"{name} {json.dumps(value)}" for name, value in one.items()) for one in answer["advice"]]
    return "\n    ".join([figures, *(f"advice: {one}" for one in advice)])


def _product(values: Product) -> str:
    named = (f"{axis} {' '.join(some)}" for axis, some in zip(AXES, values, strict=True) if some)
    return ", ".join(named) or "everywhere"


class Grid:
    """All combinations that were tried; a set of them is the bits of a number."""

    def __init__(self, combinations: Sequence[Combination]) -> None:
        self.combinations = combinations
        self.values = [tuple(dict.fromkeys(one[axis] for one in combinations)) for axis in range(len(AXES))]
        self.number = {one: 1 << index for index, one in enumerate(combinations)}
        self.bits = [
            {value: sum(self.number[one] for one in combinations if one[axis] == value) for value in self.values[axis]}
            for axis in range(len(AXES))
        ]

    def where(self, holds: Iterable[Combination]) -> list[str]:
        """Return products that cover every combination of `holds` and no other."""
        return [_product(product) for product in self._products(holds)]

    def _products(self, holds: Iterable[Combination]) -> list[Product]:
        """Cover every combination: again and again the widest product around the first that is not covered yet."""
        yes = sum(self.number[one] for one in holds)
        no = ((1 << len(self.combinations)) - 1) & ~yes
        uncovered, products = yes, []
        while uncovered:
            first = self.combinations[(uncovered & -uncovered).bit_length() - 1]
            products.append(self._widest(first, yes, no))
            uncovered &= ~self._members(products[-1])
        for product in [*products]:
            others = [self._members(one) for one in products if one != product]
            if not yes & ~functools.reduce(operator.or_, others, 0):
                products.remove(product)
        return products

    def _widest(self, combination: Combination, yes: int, no: int) -> Product:
        """Open as many axes as possible, the last ones first, then add the values that fit on the others."""
        every = list(itertools.product((False, True), repeat=len(AXES)))
        for fixed in sorted(every, key=lambda one: (sum(one), one[::-1])):
            product = tuple((value,) if keep else () for value, keep in zip(combination, fixed, strict=True))
            if not self._members(product) & no:
                break
        for axis, values in enumerate(self.values):
            for value in values if product[axis] else ():
                wider = (
                    *product[:axis],
                    tuple(v for v in values if v in {*product[axis], value}),
                    *product[axis + 1 :],
                )
                fresh = self._members(wider) & ~self._members(product)
                if fresh & yes and not fresh & no:
                    product = wider
        return product

    def _members(self, product: Product) -> int:
        members = (1 << len(self.combinations)) - 1
        for axis, values in enumerate(product):
            if values:
                members &= sum(self.bits[axis][value] for value in values)
        return members
