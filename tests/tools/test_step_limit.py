"""What a step takes at least, held against figures that were found another way."""

from __future__ import annotations

import sys

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from tools import step_limit


@pytest.mark.parametrize("model", step_limit.MODELS)
def test_all_weights_together_are_as_large_as_the_profile_file_says(model: str) -> None:
    """The tensors come from vLLM's own modules; 1.5 % are norms, tables and padding."""
    architecture, storage = step_limit.MODELS[model]
    counted = step_limit.total_gib(step_limit.SIZES[architecture], storage)
    assert counted == pytest.approx(Catalog([]).model(model, "test").get("weights_gib"), rel=0.015)


def test_experts_that_are_read_grow_with_the_tokens_of_a_step_up_to_all_of_them() -> None:
    flash = step_limit.SIZES["deepseek-v4-flash"]
    counts = [step_limit.touched(flash, tokens) for tokens in (1, 2, 8, 32, 1000)]
    assert counts[0] == pytest.approx(6)
    assert counts == sorted(counts)
    assert counts[-1] == pytest.approx(256, abs=0.01)


def test_a_step_without_draft_tokens_reads_no_draft_head() -> None:
    flash, storage = step_limit.SIZES["deepseek-v4-flash"], step_limit.MODELS["w4a16"][1]
    plain = step_limit.step(flash, storage, batch=1, draft_tokens=0, tp=2)
    drafted = step_limit.step(flash, storage, batch=1, draft_tokens=1, tp=2)
    assert drafted.bytes > plain.bytes
    assert drafted.operations > 2 * plain.operations
    alone = step_limit.step(flash, storage, batch=1, draft_tokens=0, tp=1)
    assert plain.bytes < alone.bytes < 2 * plain.bytes, "projections of the latent are read by every GPU"


def test_the_table_has_a_row_for_each_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["step_limit.py", "w4a16", "--bandwidth", "4.0", "--batch", "1", "16"])
    assert step_limit.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["1", "16"]
