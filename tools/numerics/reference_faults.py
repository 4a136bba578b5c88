"""
Put every fault of faults.toml into a copy of the reference, and keep which the comparison notices.

    python -m tools.numerics.reference_faults [NAME...]

The result is qualification/results/numerics/faults.json; `python -m tools.numerics.page` brings it into
docs/results/numerics.md. Without a name, all: about two minutes of one CPU core (OPENBLAS_NUM_THREADS=1).
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dsv4_serve.demo import numerics
from dsv4_serve.demo.numerics import answers, checkpoint, compare, golden, reference, weights
from dsv4_serve.demo.numerics.attention import Params
from dsv4_serve.demo.numerics.prompts import PROMPTS
from dsv4_serve.demo.numerics.rows import Rows
from dsv4_serve.demo.numerics.sizes import SIZES

from .faults import Fault, read

RESULT = Path(__file__).parents[2] / "qualification" / "results" / "numerics" / "faults.json"
MODULES = ("attention", "reference", "drafters", "answers")
"""In the order in which they import each other."""


def main() -> None:
    """Measure the faults that are named and write the file."""
    parser = argparse.ArgumentParser(description="Measure which faults the comparison notices.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names
    faults, kept = read(), json.loads(RESULT.read_text()) if RESULT.exists() else {}
    shipped, plain = golden.load(), answers.model("tiny").p
    for name in names or faults:
        kept[name] = measured(faults[name], shipped, plain)
        print(name, kept[name]["noticed"], flush=True)
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        ordered = {name: kept[name] for name in faults if name in kept}
        RESULT.write_text(json.dumps(ordered, indent=1) + "\n")


def measured(fault: Fault, shipped: golden.Golden, plain: Params) -> dict[str, Any]:
    """Return what the comparison says of a reference with this fault; `plain` are the parameters without it."""
    rows: Rows = {}
    dims = SIZES["tiny"]
    touched = [p for p in (*weights.target(dims), *weights.mtp(dims)) if fault.touches(p.name)]
    changed = reference.drawn(touched, lambda parameter: fault.draw(parameter, checkpoint.SEED))
    with mutated(fault.reference) as module:
        for prompt in PROMPTS:
            if prompt.name in fault.prompts:
                found = module.computed(module.ReferenceModel({**plain, **changed}, dims), prompt)
                rows |= {name: logprobs.astype(np.float32) for name, (logprobs, _, _) in found.items()}
    verdict = compare.compare(shipped, rows, compare.limits())
    figures = {name: round(value, 4) for name, value in verdict.figures.items()}
    found = {"fault": fault.text, "in": "the reference", "noticed": not verdict.right}
    return found | {"figures": figures, "reasons": list(verdict.reasons)}


@contextmanager
def mutated(change: tuple[str, str, str] | tuple[()]) -> Iterator[ModuleType]:
    """Execute the reference's modules anew, one of them with a changed line, and give `answers`."""
    real = {name: import_module(f"{numerics.__name__}.{name}") for name in MODULES}
    try:
        for name in MODULES:
            source = Path(real[name].__file__ or "").read_text()
            if change and change[0] == name:
                if source.count(change[1]) != 1:
                    raise ValueError(f"{change[1]!r} stands {source.count(change[1])} times in {name}, not once")
                source = source.replace(change[1], change[2])
            module = ModuleType(real[name].__name__)
            module.__package__ = numerics.__name__
            sys.modules[module.__name__] = module
            setattr(numerics, name, module)
            exec(compile(source, f"{name}.py", "exec"), module.__dict__)  # noqa: S102
        yield module
    finally:
        for name, module in real.items():
            sys.modules[module.__name__] = module
            setattr(numerics, name, module)


if __name__ == "__main__":
    main()
