"""
Measure what FP8 in place of BF16 does to log-probabilities: the reference with the layers of one kind rounded.

    python -m tools.numerics.narrowed

Weights are rounded by blocks of 128 x 128, inputs by 128 of a token, as by `fp8_per_block` on SM 9.0. Routed experts
keep their weights, which are exact: only their inputs are rounded, as by Humming with FP8 activations. What is kept in
qualification/results/numerics/narrowed.json is the distance from the reference without it. Six minutes of a CPU core.
"""

import json
import re

import numpy as np

from dsv4_serve.demo.numerics import answers, compare, golden
from dsv4_serve.demo.numerics.prompts import PROMPTS
from dsv4_serve.demo.numerics.reference import ReferenceModel
from dsv4_serve.demo.numerics.rounding import E4M3_MAX, Floats, scaled
from dsv4_serve.demo.numerics.rows import Rows

from .reference_faults import RESULT as FAULTS

RESULT = FAULTS.with_name("narrowed.json")
KINDS = {
    "the shared experts": r"shared_experts\.w[123]",
    "lm_head, which target and draft share": "head",
    "both": r"shared_experts\.w[123]|head",
}
"""Names of the linear layers that are rounded, by what they are."""
BLOCK = 128
INPUTS = {"inputs of the routed experts, by 128 of a token": BLOCK, "inputs of the routed experts, by token": 0}
"""How many values of an input share a scale; 0 is all of a token's."""
EXPERTS = r"experts\.\d+\.w[123]"


def by_groups(values: Floats, group: int = BLOCK) -> Floats:
    """Round to e4m3 and back, the largest of each `group` of the last axis being 448."""
    return scaled(values, group, lambda largest: np.maximum(largest, 1e-10) / E4M3_MAX)


def by_blocks(weight: Floats) -> Floats:
    """Do the same by square blocks; those at the edges may be smaller."""
    rows, cols = weight.shape
    padded = np.pad(weight, ((0, -rows % BLOCK), (0, -cols % BLOCK)))
    blocks = padded.reshape(-(-rows // BLOCK), BLOCK, -1, BLOCK).swapaxes(1, 2)
    rounded = by_groups(blocks.reshape(*blocks.shape[:2], -1), BLOCK * BLOCK).reshape(blocks.shape)
    return rounded.swapaxes(1, 2).reshape(padded.shape)[:rows, :cols]


class NarrowedModel(ReferenceModel):
    """The reference with some layers in FP8."""

    names: re.Pattern[str]
    inputs: int | None = None
    """If only inputs are rounded: how many of their values share a scale, 0 for all of a token's."""

    def linear(self, h: Floats, name: str) -> Floats:
        """Round the input and the weight, if the layer is one of them."""
        if not self.names.fullmatch(name):
            return super().linear(h, name)
        if self.inputs is not None:
            return super().linear(by_groups(h, self.inputs or h.shape[-1]), name)
        return by_groups(h) @ by_blocks(self.p[f"{name}.weight"].astype(np.float64)).T


def narrowed(plain: ReferenceModel, names: str, inputs: int | None = None) -> NarrowedModel:
    """Return the same model with the layers in FP8 whose name ends so, or only with their inputs in it."""
    model = NarrowedModel(plain.p, plain.d)
    model.names, model.inputs = re.compile(rf"(.*\.)?({names})"), inputs
    return model


def measured(model: NarrowedModel) -> dict[str, float]:
    """Return the median and the clear distance of each table but DSpark's, whose drafts depend on one another."""
    rows: Rows = {}
    for prompt in PROMPTS:
        found = answers.computed(model, prompt)
        rows |= {name: table[0].astype(np.float32) for name, table in found.items() if not name.endswith("/dspark")}
    figures = compare.compare(golden.load(), rows, {}).figures
    return {name: round(value, 4) for name, value in figures.items() if name.endswith((" median", " clear"))}


def main() -> None:
    """Measure every kind and write the file."""
    plain = answers.model("tiny")
    found = {kind: measured(narrowed(plain, names)) for kind, names in KINDS.items()}
    found |= {kind: measured(narrowed(plain, EXPERTS, group)) for kind, group in INPUTS.items()}
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
