"""What a step takes at least, held against figures that were found another way."""

from __future__ import annotations

import sys

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from tools import step_limit


@pytest.mark.parametrize("model", step_limit.MODELS)
def test_all_weights_together_are_as_large_as_the_profile_file_says(model: str) -> None:
    """The profile file's tensors come from vLLM's own modules; half a percent are norms, tables and padding."""
    architecture, storage = step_limit.MODELS[model]
    counted = step_limit.total_gib(step_limit.SIZES[architecture], storage)
    assert counted == pytest.approx(Catalog([]).model(model, "test").get("weights_gib"), rel=0.005)


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


@pytest.mark.parametrize(
    ("model", "shared", "queries"), [("w4a16", 1082, 352), ("nvfp4", 1082, 352), ("acti", 1082, 0), ("flash", 0, 0)]
)
def test_what_a_step_reads_in_bf16_is_what_the_layout_stores_so_and_vllm_computes_so(
    model: str, shared: int, queries: int
) -> None:
    architecture, storage = step_limit.MODELS[model]
    flash = step_limit.SIZES[architecture]
    found = step_limit.in_bf16(flash, storage, draft_tokens=1, tp=2)
    assert round(found.get("shared experts", 0) / 1e6) == shared
    assert round(found.get("queries of the indexer", 0) / 1e6) == queries
    assert found["lm_head, target and draft"] == 2 * 129280 * 4096
    assert "attention" not in found
    step = step_limit.step(flash, storage, batch=1, draft_tokens=1, tp=2)
    assert sum(found.values()) < step.bytes / 2


def test_the_table_has_a_row_for_each_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["step_limit.py", "w4a16", "--bandwidth", "4.36", "--batch", "1", "16"])
    assert step_limit.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == ["| 1 | 12 | 9.59 | 29 | 2.20 | 859 |", "| 16 | 136 | 47.39 | 471 | 10.87 | 2,782 |"]


def test_each_draft_token_reads_the_draft_head_and_the_output_head_once_more() -> None:
    architecture, storage = step_limit.MODELS["w4a16"]
    flash = step_limit.SIZES[architecture]
    none, one, three = (step_limit.in_bf16(flash, storage, draft_tokens=n, tp=2) for n in (0, 1, 3))
    drafting, heads = "the draft head", "lm_head, target and draft"
    assert drafting not in none
    assert three[drafting] == pytest.approx(3 * one[drafting])
    assert (one[heads], three[heads]) == (2 * none[heads], 4 * none[heads])
    assert none == {name: size for name, size in three.items() if name != drafting} | {heads: none[heads]}


def test_what_fp8_would_save_is_half_of_what_bf16_reads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["step_limit.py", "w4a16", "--bandwidth", "4.36", "--bf16"])
    assert step_limit.main() == 0
    *_, both, total = capsys.readouterr().out.splitlines()
    assert both == "| lm_head, target and draft | 1,059 | 0.24 | 0.12 |"
    assert total == "| all | 3,410 | 0.78 | 0.39 |"
