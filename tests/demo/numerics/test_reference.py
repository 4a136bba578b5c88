"""The reference: its formats against torch's, its shipped tables against a new computation."""

import numpy as np
import pytest

from dsv4_serve.demo.numerics import answers, golden, reference, rounding
from dsv4_serve.demo.numerics.attention import overlapped
from dsv4_serve.demo.numerics.prompts import GENERATED, PROMPTS

VALUES = np.concatenate(
    [np.linspace(-500, 500, 4001), np.geomspace(1e-4, 500, 4000), [0.0, 2**-9, 2**-10, 1.5 * 2**-9]]
)


def test_fp8_is_torchs():
    torch = pytest.importorskip("torch")
    inside = VALUES[np.abs(VALUES) <= rounding.E4M3_MAX].astype(np.float32)
    theirs = torch.from_numpy(inside).to(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(rounding.e4m3(inside.astype(float)), theirs)


def test_bfloat16_is_torchs():
    torch = pytest.importorskip("torch")
    theirs = torch.from_numpy(VALUES.astype(np.float32)).bfloat16().float().numpy()
    np.testing.assert_array_equal(rounding.bf16(VALUES), theirs)


def test_a_cache_entry_keeps_six_percent_and_its_positions_better():
    values = np.random.default_rng(0).normal(size=(5, 512))
    entry = rounding.kv_entry(values, 64)
    assert np.abs(entry / values - 1)[:, :448].max() <= 1 / 16 + 1e-9 or np.abs(entry - values).max() < 0.2
    np.testing.assert_allclose(entry[:, 448:], values[:, 448:], rtol=2**-8)
    assert not np.array_equal(entry, values)


def test_mixing_keeps_the_sum_of_the_streams():
    mixed = reference.doubly_stochastic(np.random.default_rng(0).normal(size=(3, 4, 4)))
    np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(mixed.sum(axis=2), 1, atol=1e-4)


def test_an_entry_of_ratio_4_sees_the_first_half_of_the_group_before():
    groups = np.arange(16, dtype=np.float64).reshape(2, 4, 2)
    seen = overlapped(groups, -1)[:, :, 0]
    assert seen.tolist() == [[-1] * 4 + groups[0, :, 1].tolist(), groups[0, :, 0].tolist() + groups[1, :, 1].tolist()]


@pytest.mark.process
@pytest.mark.slow
def test_the_shipped_tables_are_what_the_reference_computes():
    shipped, again = golden.load(), answers.golden("tiny", PROMPTS[:1])
    assert again.digest == shipped.digest, "the weights changed: run `python -m tools.numerics`"
    for name, table in again.tables.items():
        np.testing.assert_allclose(table.logprobs, shipped.tables[name].logprobs, atol=2e-3)
        np.testing.assert_array_equal(table.tokens[:, 0], shipped.tables[name].tokens[:, 0])
        np.testing.assert_array_equal(table.routes, shipped.tables[name].routes)


def test_the_shipped_tables_cover_what_is_asked():
    shipped = golden.load()
    for prompt in PROMPTS:
        assert len(shipped.tables[prompt.name].margin) == len(prompt.tokens) + GENERATED - 1
        assert len(shipped.tables[f"{prompt.name}/draft"].margin) == GENERATED
    routes = shipped.tables["long"].routes
    reached = [len(np.unique(routes[:, layer])) for layer in range(routes.shape[1])]
    assert reached == [63, 64, 64, 64], "every expert but one, which only the special tokens have in hash routing"
