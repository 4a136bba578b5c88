"""The table of deliberate faults: the page shows the results file, and a fault changes what it says it changes."""

import json
from typing import Any

import numpy as np
import pytest

from dsv4_serve.demo.numerics import checkpoint, weights
from dsv4_serve.demo.numerics.sizes import SIZES
from tools.numerics import faults, page, reference_faults


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
