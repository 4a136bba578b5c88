"""The comparison: what it finds right, and what it notices."""

import json
from pathlib import Path

import numpy as np
import pytest

from dsv4_serve.demo.numerics import compare, golden, rows
from dsv4_serve.demo.numerics.prompts import VOCAB

ALLOWED = {name: 0.5 if name.endswith("clear") else 0.1 for name in compare.FLOORS["cpu"]} | {"long expert": 1.2}


@pytest.fixture(scope="module")
def shipped():
    return golden.load()


def engine(shipped, noise=0.05):
    """Rows as an engine returns them, with a little noise."""
    out, rng = {}, np.random.default_rng(0)
    for name, table in shipped.tables.items():
        got = np.full((len(table.margin), VOCAB), np.nan, np.float32)
        np.put_along_axis(got, table.tokens.astype(int), table.logprobs.astype(np.float32), axis=1)
        out[name] = got + rng.uniform(-noise, noise, got.shape).astype(np.float32)
    return out


def test_the_same_answer_is_right(shipped):
    verdict = compare.compare(shipped, engine(shipped), ALLOWED)
    assert verdict.right, verdict.reasons
    assert 0.03 < verdict.figures["middle median"] < 0.05


def test_a_shift_is_noticed(shipped):
    got = engine(shipped)
    got["middle"] += 0.2
    reasons = compare.compare(shipped, got, ALLOWED).reasons
    assert [reason[:17] for reason in reasons] == ["middle median is "]


def test_a_wrong_draft_is_noticed(shipped):
    got = engine(shipped)
    got["long/draft"] += 0.2
    assert [reason.split()[0] for reason in compare.compare(shipped, got, ALLOWED).reasons] == ["long/draft"]


def test_one_position_is_noticed_only_where_every_router_chose_clearly(shipped):
    margin = shipped.tables["middle"].margin
    for place, noticed in ((margin.argmax(), True), (margin.argmin(), False)):
        got = engine(shipped)
        got["middle"][place] += 2
        assert compare.compare(shipped, got, ALLOWED).right is not noticed


def test_an_expert_is_noticed_in_the_positions_that_went_to_it(shipped):
    got, routes = engine(shipped), shipped.tables["long"].routes
    got["long"][(routes[:, 3] == 7).any(axis=1)] += 0.08
    reasons = compare.compare(shipped, got, ALLOWED).reasons
    assert any("expert" in reason for reason in reasons), reasons


def test_a_token_that_the_engine_did_not_return_is_far_away(shipped):
    got, table = engine(shipped), shipped.tables["short"]
    place = int(table.margin.argmax())
    got["short"][place, table.tokens[place, 7]] = np.nan
    assert compare.compare(shipped, got, ALLOWED).figures["short clear"] == compare.ABSENT


def test_rows_that_an_engine_left_out_do_not_count(shipped):
    got = engine(shipped)
    got["short"][3:] = np.nan
    assert compare.compare(shipped, got, ALLOWED).right


def test_nothing_at_all_is_not_right(shipped):
    got = engine(shipped)
    got["short"][:] = np.nan
    assert not compare.compare(shipped, got, ALLOWED).right
    assert not compare.compare(shipped, {}, ALLOWED).right


def test_numbers_that_are_no_numbers_are_wrong(shipped):
    got = engine(shipped)
    got["short"][:] = -np.inf
    assert not compare.compare(shipped, got, ALLOWED).right


def test_an_accepted_draft_leaves_a_row_out():
    def drafts(token):
        return np.eye(4, dtype=np.float32)[token] * 9

    table = rows.answered([drafts(0), drafts(3), drafts(1)], [2, 2, 3, 3, 3])
    assert np.isnan(table).all(axis=1).tolist() == [False, False, True, False, True]
    np.testing.assert_allclose(np.exp(table[0]).sum(), 1, rtol=1e-5)


def test_fp4_activations_have_thrice_the_room_until_they_are_measured():
    wide, narrow = compare.limits("gpu"), compare.limits("gpu-w4a4")
    assert wide.pop("signature") == compare.SIGNATURE
    assert {name: round(narrow[name] / wide[name], 6) for name in wide} == dict.fromkeys(wide, 3)


RESULTS = sorted((Path(__file__).parents[3] / "qualification/results/numerics").glob("*-h200-*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_what_gpus_gave_is_within_the_limits_and_not_by_far(path):
    figures, limits = json.loads(path.read_text())["figures"], compare.limits("gpu")
    shares = {name: figures[name] / limits[name] for name in figures.keys() & limits.keys()}
    assert len(shares) >= 9
    assert max(shares.values()) <= 0.51, shares
    held = [figures[f"middle {fault}"] for name, fault in golden.load("flash").signatures if name == "middle"]
    assert len(held) >= 8
    assert max(held) < compare.SIGNATURE
    assert min(held) > compare.SIGNATURE - 1, "the fault would not be seen"


def test_a_fault_below_rounding_is_seen_by_its_signature():
    shipped = golden.load()
    for (name, fault), change in shipped.signatures.items():
        table = shipped.tables[name]
        rows = np.full((len(table.margin), 128), np.nan, np.float32)
        right = table.logprobs.astype(np.float32)
        for held, noticed in ((0.0, False), (1.0, True)):
            np.put_along_axis(rows, table.tokens.astype(int), right + held * change.astype(np.float32), axis=1)
            found = compare.compare(shipped, {name: rows}, compare.limits())
            assert found.figures[f"{name} {fault}"] == pytest.approx(held, abs=0.01)
            assert any(f"{name} {fault}" in reason for reason in found.reasons) is noticed
