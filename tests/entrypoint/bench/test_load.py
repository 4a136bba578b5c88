"""One run of the load generator: its arguments, the figures taken from it, and how it fails."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
from pathlib import Path

import httpx
import pytest

from dsv4_serve.entrypoint.bench import load, measure
from dsv4_serve.entrypoint.bench.load import LoadFailed, Tokenizer
from dsv4_serve.entrypoint.bench.options import LoadMatrix, LoadShape
from dsv4_serve.entrypoint.client import http
from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.errors import NotFound, UsageError

WHERE = Endpoint("http://127.0.0.1:9", None, "secret")
SAVED = {
    "completed": 4, "output_throughput": 88.354, "duration": 11.5912, "p50_tpot_ms": 6.0204, "p99_tpot_ms": 7.0,
    "p50_ttft_ms": 40.04, "p99_ttft_ms": 90.0, "spec_decode_draft_tokens": 200, "spec_decode_accepted_tokens": 178,
}  # fmt: skip


def test_the_command_names_everything_that_shapes_the_load() -> None:
    argv = load.command(
        LoadShape(4, 512, 128, 16, 4, 7), WHERE, "flash", Tokenizer("/models/x", "deepseek_v4"), "/tmp/x"
    )
    given = dict(itertools.pairwise(argv))
    assert argv[:2] == ["bench", "serve"]
    assert given["--base-url"] == WHERE.url
    assert (given["--max-concurrency"], given["--num-prompts"]) == ("4", "16")
    assert "--num-warmups" not in given  # it would send the first measured prompt
    assert (given["--random-input-len"], given["--random-output-len"], given["--random-range-ratio"]) == (
        "512", "128", "0",
    )  # fmt: skip
    assert (given["--tokenizer"], given["--tokenizer-mode"], given["--model"]) == ("/models/x", "deepseek_v4", "flash")
    assert (given["--seed"], given["--temperature"]) == ("7", "0")
    assert "--ignore-eos" in argv
    assert "secret" not in " ".join(argv)


def test_an_address_with_a_password_is_no_argument() -> None:
    where = dataclasses.replace(WHERE, url="http://me:hunter2@127.0.0.1:8000")
    with pytest.raises(UsageError, match="holds a password") as caught:
        load.command(LoadShape(1), where, "m", Tokenizer("t"), "/tmp/x")
    assert "hunter2" not in str(caught.value)


def test_every_flag_is_one_of_the_installed_generator() -> None:
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("no vLLM here")
    folder = Path(found.origin).parent / "benchmarks"
    known = (folder / "serve.py").read_text() + (folder / "datasets" / "datasets.py").read_text()
    argv = load.command(LoadShape(1), WHERE, "m", Tokenizer("t"), "/tmp/x")
    assert [word for word in argv if word.startswith("--") and f'"{word}"' not in known] == []


def test_figures_are_taken_and_rounded() -> None:
    row = load.row(LoadShape(1, requests=4), SAVED)
    assert (row.output_tokens_per_second, row.tpot_p50, row.ttft_p50, row.seconds) == (88.35, 6.02, 40.0, 11.59)
    assert row.acceptance == 0.89
    assert row.by_position == ()
    shares = {"spec_decode_per_position_acceptance_rates": [0.95, 0.83001]}  # vllm/benchmarks/serve.py of 0.32.0
    assert load.row(LoadShape(1, requests=4), SAVED | shares).by_position == (0.95, 0.83)


def test_without_drafts_there_is_no_acceptance() -> None:
    row = load.row(LoadShape(1, requests=4), {name: SAVED[name] for name in SAVED if not name.startswith("spec")})
    assert row.acceptance is None
    assert row.drafted == 0


def test_a_lost_request_makes_no_figure() -> None:
    with pytest.raises(LoadFailed, match="1 of 4 requests failed at batch 1"):
        load.row(LoadShape(1, requests=4), {**SAVED, "completed": 3})


def test_a_lost_request_says_the_first_error() -> None:
    with pytest.raises(LoadFailed, match=r"see the server's log\. The first error: Too Many Requests\.$"):
        load.row(LoadShape(1, requests=4), {**SAVED, "completed": 3}, "Too Many Requests")


@pytest.mark.parametrize(
    ("output", "first"),
    [
        ("", ""),
        ("Error 0: \n======\n", ""),
        (
            "Error 0: Traceback (most recent call last):\n  File x\nOSError: gone.\n\n============ Result ====\n",
            "OSError: gone",
        ),
    ],
)
def test_the_error_of_a_request_is_the_last_line_of_what_was_printed(output: str, first: str) -> None:
    assert load.error_of_request(output) == first


def test_tokens_are_counted_by_the_server() -> None:
    row = load.row(LoadShape(1, requests=4), SAVED | {"total_input_tokens": 1000, "total_output_tokens": 1024})
    assert row.counted == (1000, 1024)
    found = [{**row.to_json(), "input": size} for size in (242, 259)]
    assert [list(measure.miscounted([one])) for one in found] == [
        [], ["At batch 1 with 259 tokens in, the server counted 250.0 tokens a prompt and 256.0 an answer."],
    ]  # fmt: skip


def test_the_share_from_the_prefix_cache_is_of_the_tokens_looked_up_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = iter([(100, 400), (250, 600)])

    def accepted(url: str, key: str | None) -> httpx.Response:
        assert (url, key) == ("http://127.0.0.1:9/metrics", "secret")
        hits, queries = next(pages)
        text = f"vllm:prefix_cache_queries_total{{}} {queries}\nvllm:prefix_cache_hits_total{{}} {hits}\n"
        return httpx.Response(200, text=text)

    monkeypatch.setattr(http, "get_accepted", accepted)
    assert load.cached_share(load.prefix_cache(WHERE), load.prefix_cache(WHERE)) == 0.75
    assert load.cached_share(None, (1, 2)) is None
    assert load.cached_share((1, 2), (1, 2)) is None


def test_a_generator_that_breaks_names_its_cause(environ: dict[str, str]) -> None:
    with pytest.raises(LoadFailed, match="status 1: ValueError: no tokenizer here"):
        load.run(LoadShape(1, warm_up=0), WHERE, "m", Tokenizer("t"), {**environ, "GENERATOR": "breaks"})


def test_a_missing_vllm_is_reported_with_the_remedy(environ: dict[str, str]) -> None:
    with pytest.raises(NotFound, match="install vLLM here too, or name it with DSV4_VLLM"):
        load.run(LoadShape(1, warm_up=0), WHERE, "m", Tokenizer("t"), {**environ, "DSV4_VLLM": "/nowhere/vllm"})


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        ("", "no output"),
        ("one\ntwo\n", "two"),
        ("Traceback:\n  x\nKeyError: 'a'\nbye\n", "KeyError: 'a'"),
        ("vllm: error: argument --x: bad", "vllm: error: argument --x: bad"),
    ],
)
def test_the_cause_is_the_line_that_names_an_error(output: str, cause: str) -> None:
    assert load.cause(output) == cause


def test_every_pair_of_length_and_batch_is_one_row_with_prompts_of_its_own() -> None:
    shapes = list(LoadMatrix((1, 4), (256, 8192), 256, 3).shapes())
    assert [(shape.input, shape.batch, shape.requests, shape.warm_up) for shape in shapes] == [
        (256, 1, 3, 1), (256, 4, 12, 4), (8192, 1, 3, 1), (8192, 4, 12, 4),
    ]  # fmt: skip
    assert len({shape.seed for shape in shapes}) == 4


def test_a_table_has_the_share_from_the_prefix_cache_where_it_matters() -> None:
    row = load.row(LoadShape(1, requests=4), SAVED).to_json()
    assert "prefix cache" not in measure.lines([row | {"cached_share": 0.009}])[0]
    assert [line[-1] for line in measure.lines([row | {"cached_share": 0.2}, row | {"batch": 2}])] == [
        "prefix cache",
        "20.0%",
        "-",
    ]
