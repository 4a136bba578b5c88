"""
Facts, each said once: the lines that an answer of `explain` or `fit` comes to, and where they hold. Pure.

Where: combinations of profile, model, hardware and size, written as products such as `profile 524k 640k, tp 4`.
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
    """Yield what the JSON of `explain` says, a line or a few for each fact; the order of its lists and keys too."""
    rest = set(answer) - {"argv", "env", "settings"}
    yield from (f"a key of its own: {key}" for key in sorted(rest))
    for name, setting in answer["settings"].items():
        yield _setting(name, **setting)
    yield from _order("settings", list(answer["settings"]))
    yield from (f"env {name}={value}" for name, value in answer["env"].items())
    yield from _order("env", list(answer["env"]))
    flags = list(_by_flag(answer["argv"]))
    yield from (f"argv {shlex.join(words)}" for words in flags)
    yield from _order("argv", ["" if words[0] == "vllm" else words[0] for words in flags])


def _setting(name: str, *, value: Any, origin: str, overridden: Sequence[Mapping[str, Any]]) -> str:
    beneath = "".join(f"\n    over {_one(**setting)}" for setting in overridden)
    return f"{name} = {_one(value, origin)}{beneath}"


def _one(value: Any, origin: str) -> str:
    return f"{json.dumps(value, ensure_ascii=False)}  # {origin}"


def _order(what: str, names: Sequence[str]) -> Iterator[str]:
    """Yield what follows what: all neighbours together are the order."""
    for one, other in itertools.pairwise(names):
        yield f"order of {what}: {one or 'the model'}, {other}"


def _by_flag(argv: Sequence[str]) -> Iterator[list[str]]:
    words: list[str] = []
    for word in argv:
        if word.startswith("--") and words:
            yield words
            words = []
        words.append(word)
    yield words


def of_fit(answer: Mapping[str, Any]) -> str:
    """Return what the JSON of `fit` says, the figures in one line and each advice in its own."""
    figures = ", ".join(f"{name} {json.dumps(value)}" for name, value in answer.items() if name != "advice")
    advice = [", ".join(f"{name} {json.dumps(value)}" for name, value in one.items()) for one in answer["advice"]]
    return "\n    ".join([figures, *(f"advice: {one}" for one in advice)])


def _product(values: Product) -> str:
    named = (f"{axis} {' '.join(some)}" for axis, some in zip(AXES, values, strict=True) if some)
    return ", ".join(named) or "everywhere"


class Grid:
    """Everything that was asked; sets of combinations are bits of a number."""

    def __init__(self, asked: Sequence[Combination]) -> None:
        self.asked = asked
        self.values = [tuple(dict.fromkeys(one[axis] for one in asked)) for axis in range(len(AXES))]
        self.number = {one: 1 << place for place, one in enumerate(asked)}
        self.bits = [
            {value: sum(self.number[one] for one in asked if one[axis] == value) for value in self.values[axis]}
            for axis in range(len(AXES))
        ]

    def where(self, holds: Iterable[Combination]) -> list[str]:
        """Return products that hold every combination of `holds` and no other that was asked."""
        return [_product(product) for product in self._products(holds)]

    def _products(self, holds: Iterable[Combination]) -> list[Product]:
        """Return products until every combination is in one, each the widest around the first that is left."""
        yes = sum(self.number[one] for one in holds)
        no = ((1 << len(self.asked)) - 1) & ~yes
        left, found = yes, []
        while left:
            first = self.asked[(left & -left).bit_length() - 1]
            found.append(self._widest(first, yes, no))
            left &= ~self._members(found[-1])
        for product in [*found]:
            others = [self._members(one) for one in found if one != product]
            if not yes & ~functools.reduce(operator.or_, others, 0):
                found.remove(product)
        return found

    def _widest(self, around: Combination, yes: int, no: int) -> Product:
        """Leave as many axes open as can be, the last ones first, and take in what fits on the others."""
        every = list(itertools.product((False, True), repeat=len(AXES)))
        for fixed in sorted(every, key=lambda one: (sum(one), one[::-1])):
            product = tuple((value,) if keep else () for value, keep in zip(around, fixed, strict=True))
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
        found = (1 << len(self.asked)) - 1
        for axis, values in enumerate(product):
            if values:
                found &= sum(self.bits[axis][value] for value in values)
        return found
