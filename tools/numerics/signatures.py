"""
Keep how the faults that change less than rounding does change the reference's logprobs.

    python -m tools.numerics.signatures [--size tiny] [NAME...]

It writes demo/numerics/signatures-SIZE.npz, of the faults of faults.toml that are `faint`; those that are not named
stay as they are. A fault takes 5 seconds of one CPU core for `tiny`, two minutes for `flash`.
"""

import argparse
from collections import ChainMap
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dsv4_serve.demo.numerics import answers, checkpoint, compare, golden, reference, weights
from dsv4_serve.demo.numerics.prompts import GENERATED, PROMPTS, NumericsPrompt
from dsv4_serve.demo.numerics.sizes import SIZES

from .faults import Fault, read
from .reference_faults import mutated

FOLDER = Path(golden.__file__).parent


def main() -> None:
    """Compute and write."""
    faint = [name for name, fault in read().items() if fault.faint]
    parser = argparse.ArgumentParser(description="Keep how faint faults change the reference.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    options = parser.parse_args()
    shipped = golden.load(options.size)
    found = {f"{table}:{fault}": values for (table, fault), values in shipped.signatures.items()}
    for name in options.names or faint:
        found |= signature(name, read()[name], shipped, options.size)
        with (FOLDER / f"signatures-{options.size}.npz").open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **found)
        print(name, flush=True)


def signature(name: str, fault: Fault, shipped: golden.Golden, size: str) -> dict[str, NDArray[np.float16]]:
    """Return what a fault changes in the first table of its prompts that it reaches."""
    dims, model = SIZES[size], answers.model(size)
    touched = [p for p in (*weights.target(dims), *weights.mtp(dims)) if fault.touches(p.name)]
    changed: dict[str, Any] = reference.drawn(touched, lambda parameter: fault.draw(parameter, checkpoint.SEED))
    prompt = next(prompt for prompt in PROMPTS if prompt.name in fault.prompts)
    with mutated(fault.reference) as module:
        faulty = module.ReferenceModel(ChainMap(changed, cast("dict[str, Any]", model.p)), dims)
        apart, _ = compare.differences(shipped.tables[fault.faint], rows(module, faulty, prompt, fault.faint))
    return {f"{fault.faint}:{name}": apart.astype(np.float16)}


def rows(module: ModuleType, model: reference.ReferenceModel, prompt: NumericsPrompt, where: str) -> NDArray[Any]:
    """Return a table's logprobs; those of the target model without its drafters."""
    if where != prompt.name:
        computed: NDArray[Any] = module.computed(model, prompt)[where][0]
        return computed
    tokens = np.array([*prompt.tokens, *[prompt.answer] * GENERATED])
    return reference.log_softmax(model.trace(tokens).logits[:-1])


if __name__ == "__main__":
    main()
