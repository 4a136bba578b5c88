"""The table of deliberate faults: the page shows the results file, and a fault changes what it says it changes."""

import json
from typing import Any

import numpy as np
import pytest

from dsv4_serve.demo.numerics import checkpoint, reference, rounding, weights
from dsv4_serve.demo.numerics.sizes import SIZES
from tools.numerics import faults, narrowed, page, reference_faults


def test_the_page_shows_the_results():
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.page(text) == text, "run `python -m tools.numerics.page`"


def test_the_four_blind_spots_are_noticed():
    found = json.loads(reference_faults.RESULT.read_text(encoding="utf-8"))
    for name in ("ratio-128", "yarn-start", "expert", "index-topk"):
        assert found[name]["noticed"], name


def test_the_limits_of_gpus_which_are_wider_notice_all_but_one_that_changes_no_answer():
    found = json.loads(reference_faults.RESULT.read_text(encoding="utf-8"))
    missed = {name for name, entry in found.items() if "no" in page.on_gpus(name, entry["figures"])}
    assert missed == {"draft-position"}


@pytest.mark.parametrize("name", faults.read())
def test_a_fault_changes_something_that_is_there(name):
    fault, dims = faults.read()[name], SIZES["tiny"]
    parameters = [p for p in (*weights.target(dims), *weights.mtp(dims)) if fault.touches(p.name)]
    changed = False
    for parameter in parameters[:3]:
        mine = fault.draw(parameter, checkpoint.SEED)
        plain: Any = parameter.draw(checkpoint.SEED)
        for part in ("levels", "exps"):
            changed |= not np.array_equal(getattr(mine, part, mine), getattr(plain, part, plain))
    assert changed or fault.reference
    with reference_faults.mutated(fault.reference) as module:
        assert module.__name__.endswith("answers")


def test_a_line_that_is_not_there_is_an_error():
    with (
        pytest.raises(ValueError, match="stands 0 times in attention"),
        reference_faults.mutated(("attention", "no such", "")),
    ):
        pass


def test_a_block_keeps_its_largest_and_loses_at_most_a_sixteenth_of_the_others():
    weight = np.random.default_rng(3).normal(size=(160, 256))
    weight[:128, :128] *= 1000
    rounded = narrowed.by_blocks(weight)
    for rows in (slice(128), slice(128, 160)):
        for cols in (slice(128), slice(128, 256)):
            block, there = weight[rows, cols], rounded[rows, cols]
            largest = np.abs(block).max()
            assert np.abs(there).max() == pytest.approx(largest)
            codes = there / largest * rounding.E4M3_MAX
            np.testing.assert_allclose(rounding.e4m3(codes), codes, rtol=1e-12)
            ordinary = np.abs(block) > largest / 2**14
            assert (np.abs(there / block - 1)[ordinary] <= 1 / 16).all()


def test_only_the_layers_that_are_named_are_rounded():
    rng = np.random.default_rng(4)
    names = ("layers.0.ffn.shared_experts.w1", "layers.0.ffn.experts.3.w1", "mtp.0.ffn.shared_experts.w2", "head")
    params = {f"{name}.weight": rng.normal(size=(128, 128)) for name in names}
    h = rng.normal(size=(3, 128))
    plain = reference.ReferenceModel(params, SIZES["tiny"])
    found = {}
    for kind, pattern in narrowed.KINDS.items():
        model = narrowed.narrowed(plain, pattern)
        found[kind] = [name for name in names if not np.array_equal(model.linear(h, name), plain.linear(h, name))]
    shared = [name for name in names if "shared" in name]
    assert list(found.values()) == [shared, ["head"], [*shared, "head"]]
    weight = narrowed.by_blocks(params["head.weight"])
    np.testing.assert_array_equal(model.linear(h, "head"), narrowed.by_groups(h) @ weight.T)


@pytest.mark.parametrize(("group", "scales"), [(128, 2), (0, 1)])
def test_of_routed_experts_only_the_inputs_are_rounded(group, scales):
    rng = np.random.default_rng(4)
    names = ("layers.0.ffn.experts.3.w1", "mtp.0.ffn.experts.0.w2", "layers.0.ffn.shared_experts.w1", "head")
    params = {f"{name}.weight": rng.normal(size=(128, 256)) for name in names}
    h = rng.normal(size=(3, 256)) * np.repeat([1.0, 100.0], 128)
    plain = reference.ReferenceModel(params, SIZES["tiny"])
    model = narrowed.narrowed(plain, narrowed.EXPERTS, group)
    found = [name for name in names if not np.array_equal(model.linear(h, name), plain.linear(h, name))]
    assert found == list(names[:2])
    rounded = np.concatenate([narrowed.by_groups(part, part.shape[-1]) for part in np.split(h, scales, axis=1)], axis=1)
    np.testing.assert_array_equal(model.linear(h, names[0]), rounded @ params[f"{names[0]}.weight"].T)
