"""The folder in place of weights: real sizes, a tokenizer of the whole vocabulary, the draft head by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from dsv4_serve.demo.deepseek_v4 import LAYOUTS, Dims
from dsv4_serve.demo.deepseek_v4 import write as write_whole
from dsv4_serve.demo.tokenizer import MARKS
from dsv4_serve.entrypoint.bench import command, measure, routing
from dsv4_serve.entrypoint.bench import without_weights as dummy
from dsv4_serve.entrypoint.bench.options import ServeOptions
from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.checkpoint import read
from dsv4_serve.entrypoint.checkpoint.identify import identity_of
from dsv4_serve.entrypoint.doctor.checkpoint_requirements import CheckpointRequirements
from dsv4_serve.entrypoint.doctor.checks import checkpoint as checkpoint_checks
from dsv4_serve.entrypoint.errors import ConfigError, UsageError
from dsv4_serve.entrypoint.resolve.layers import resolve
from tests.support.plans import request, selected


@pytest.fixture(scope="module")
def flash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flash")
    dummy.write(folder, "deepseek-v4-flash", "w4a16")
    return folder


def test_the_configuration_has_the_published_sizes(flash: Path) -> None:
    config = json.loads((flash / "config.json").read_text())
    assert (config["num_hidden_layers"], config["n_routed_experts"], config["vocab_size"]) == (43, 256, 129280)
    ratios = config["compress_ratios"]
    assert (len(ratios), ratios.count(4), ratios.count(128)) == (44, 21, 20)
    assert config["rope_scaling"]["original_max_position_embeddings"] == 65536


def test_every_token_is_a_word_that_comes_back(flash: Path) -> None:
    tokenizer = Tokenizer.from_file(str(flash / "tokenizer.json"))
    ids = [10, 77, 129279, 11, 128000, 5, 10]  # with a mark
    assert tokenizer.encode(tokenizer.decode(ids)).ids == ids
    assert tokenizer.get_vocab_size() == 129280
    assert tokenizer.encode("Hello there").ids == [2, 2]


def test_each_mark_of_a_chat_is_a_token(flash: Path) -> None:
    tokenizer = Tokenizer.from_file(str(flash / "tokenizer.json"))
    assert tokenizer.encode("".join(MARKS)).ids == [tokenizer.token_to_id(mark) for mark in MARKS]
    assert None not in {tokenizer.token_to_id(mark) for mark in MARKS}


def test_a_text_has_no_more_characters_than_its_longest_token_allows(flash: Path) -> None:
    """vLLM refuses it otherwise, whatever its tokens: a prompt as long as the context was answered with 400."""
    tokenizer = Tokenizer.from_file(str(flash / "tokenizer.json"))
    text = tokenizer.decode([129279] * 1000)
    assert len(text) <= 1000 * max(map(len, tokenizer.get_vocab()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_draft_head_has_the_names_that_a_whole_checkpoint_has(tmp_path: Path, layout: str) -> None:
    write_whole(tmp_path, layout, Dims(experts=16))
    names = json.loads((tmp_path / dummy.INDEX).read_text())["weight_map"]
    assert set(dummy.draft_tensors(layout, 16)) == {name for name in names if name.startswith("mtp.")}


@pytest.mark.parametrize("layout", ["w4a16", "flash-0731", "flash-0731-nvfp4"])
def test_the_doctor_misses_nothing_but_the_weights(tmp_path: Path, layout: str) -> None:
    dummy.write(tmp_path, "deepseek-v4-flash", layout)
    found = checkpoint_checks.examine(read.read(tmp_path), CheckpointRequirements())
    assert {name for name, _ in found} == set(dummy.SKIPPED)


def test_every_model_that_is_published_quantized_has_a_layout_and_sizes() -> None:
    models = [Catalog([]).model(name, "") for name in Catalog([]).names("model")]
    published = [model for model in models if str(model.get("architecture")) in dummy.SIZES]
    assert len(published) >= 5
    for model in (model for model in published if model.name != "flash-base"):  # FP8 experts: no layout of the demo
        layout = dummy.layout_of(model)
        assert LAYOUTS[layout].drafter == model.get("drafter").kind, model.name


@pytest.mark.parametrize(("name", "layout"), [("flash-nvfp4", "flash-nvfp4"), ("pro-nvfp4", "pro")])
def test_flash_and_pro_in_nvfp4_are_described_as_each_is_published(name: str, layout: str) -> None:
    assert dummy.layout_of(Catalog([]).model(name, "")) == layout


def test_a_dspark_drafter_is_served_as_one(tmp_path: Path) -> None:
    requested = request(hardware="h200", profile="64k", model="flash-0731")
    selection = selected(requested)
    serve, weights = command.dummy(
        selection, resolve(selection, requested), ServeOptions({}, acceptance=(0.5,)), {"DSV4_CACHE": str(tmp_path)}
    )
    found = identity_of(Path(serve.choices["model"].partition("=")[2]), "").drafter
    assert (found.kind, found.scheme, found.layers, found.block_size, found.wrong) == ("dspark", "fp8-mxfp4", 3, 5, ())
    assert weights == "dummy weights, synthetic acceptance 0.5, 0.25, 0.125, 0.0625, 0.03125"


def test_a_model_of_unknown_layout_or_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not support the layout of the model demo"):
        dummy.layout_of(Catalog([]).model("demo", ""))
    with pytest.raises(ConfigError, match="supports deepseek-v4-flash and deepseek-v4-pro, not"):
        dummy.write(tmp_path, "deepseek-v5", "w4a16")


@pytest.mark.parametrize(
    ("chances", "tokens", "rates"),
    [([0.89], 1, [0.89]), ([0.5], 3, [0.5, 0.25, 0.125]), ([0.9, 0.7], 2, [0.9, 0.7]), ([0.89], 0, [])],
)
def test_one_share_counts_for_each_draft_token_after_the_ones_before_it(
    chances: list[float], tokens: int, rates: list[float]
) -> None:
    assert dummy.acceptance_rates(chances, tokens) == rates


@pytest.mark.parametrize(("chances", "tokens"), [([1.1], 1), ([-0.1], 1), ([0.5, 0.6], 2), ([0.5, 0.4], 3)])
def test_shares_that_cannot_be_are_refused(chances: list[float], tokens: int) -> None:
    with pytest.raises(UsageError, match="--acceptance"):
        dummy.acceptance_rates(chances, tokens)


def test_without_draft_tokens_nothing_is_accepted_at_random() -> None:
    assert "--speculative-config.rejection_sample_method" not in dummy.flags([])


def described(**flags: object) -> dict[str, Any]:
    """A replica as `/plan` describes it."""
    settings = {"model": "m", **{name.replace("_", "-"): value for name, value in flags.items()}}
    return {"settings": {name: {"value": value} for name, value in settings.items()}}


SYNTHETIC = {
    "speculative-config.num_speculative_tokens": 2,
    "speculative-config.synthetic_acceptance_rates": [0.9, 0.8],
}


@pytest.mark.parametrize(
    ("replica", "weights"),
    [
        (described(tensor_parallel_size=2), "as served"),
        (described(load_format="auto"), "as served"),
        (described(load_format="dummy"), "dummy weights"),
        (
            {"settings": described(load_format="dummy")["settings"] | {k: {"value": v} for k, v in SYNTHETIC.items()}},
            "dummy weights, synthetic acceptance 0.9, 0.8",
        ),
        ({}, "unknown"),
    ],
)
def test_a_result_says_by_the_plan_what_the_weights_were(replica: dict[str, Any], weights: str) -> None:
    assert measure.weights_of(replica) == weights


def test_a_result_says_from_the_plan_how_experts_were_routed() -> None:
    found = measure.weights_of({**described(load_format="dummy"), "env": {routing.VARIABLE: routing.RANDOM}})
    assert found == "dummy weights, experts uniform_random"


@pytest.mark.vllm
@pytest.mark.slow
def test_with_random_routing_sixteen_requests_read_as_many_experts_as_even_routing_has() -> None:
    import torch  # not at the top: every process of a run would import vLLM
    from vllm.model_executor.layers.fused_moe.router.routing_simulator_router import RoutingSimulator

    tokens, top_k, experts = 32, 6, 256
    logits = torch.zeros(tokens, experts)
    _, chosen = RoutingSimulator.simulate_routing(torch.zeros(tokens, 8), logits, routing.RANDOM, top_k)
    assert all(len(set(one)) == top_k for one in chosen.tolist())
    expected = experts * (1 - (1 - top_k / experts) ** tokens)
    assert abs(len(set(chosen.flatten().tolist())) - expected) < 5 * 6  # about five standard deviations
