"""The precedence of layers, and what a plan keeps of the values that lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.plan import DRAFT_TOKENS, Setting
from dsv4_serve.entrypoint.request import Layer
from dsv4_serve.entrypoint.resolve import layers
from tests.support.plans import request, resolved

Write = Callable[[Mapping[str, str]], Path]
PORT = "[flags]\nport = {}\n"
LAYERS = {  # lowest first, as `layers.layers` has them
    "base": "base.toml [flags]",
    "model": "models/mine.toml [flags]",
    "hardware": "hardware/mine.toml [flags]",
    "nccl": "nccl/mine.toml [flags]",
    "profile": "mine.toml [flags]",
    "environment": "environment PORT",
    "command line": "command line --port",
}
FILES = {
    "base": ("base.toml", (Path(__file__).parents[3] / "profiles/base.toml").read_text(encoding="utf-8")),
    "model": ("models/mine.toml", 'extends = "acti"\n'),
    "hardware": ("hardware/mine.toml", 'extends = "h200"\n'),
    "nccl": ("nccl/mine.toml", ""),
    "profile": ("mine.toml", 'extends = "64k"\n'),
}


@pytest.mark.parametrize("highest", range(1, len(LAYERS)))
def test_each_layer_beats_every_one_below_it(folder: Write, highest: int) -> None:
    setting = {name: number for number, name in enumerate(LAYERS) if number <= highest}
    files = {
        path: text if name == "base" or name not in setting else text + PORT.format(setting[name])
        for name, (path, text) in FILES.items()
    }
    environment = {"port": Setting(setting["environment"], "environment PORT")} if "environment" in setting else {}
    line = {"port": Setting(setting["command line"], "command line --port")} if "command line" in setting else {}
    mounted = folder(files)
    named = request(profile="mine", model="mine=/weights", hardware="mine", nccl="mine")
    requested = dataclasses.replace(named, environment=Layer(environment), command_line=Layer(line))
    port = resolved(requested, Catalog([mounted])).flags["port"]
    values = [port.value, *(one.value for one in port.overridden)]
    assert values == [*range(highest, 0, -1), 8000]
    assert port.origin.endswith([*LAYERS.values()][highest])


def test_what_was_replaced_stands_beneath_with_its_origin_nearest_first(folder: Write) -> None:
    mounted = folder({"mine.toml": 'extends = "128k"\n[flags]\nmax-num-seqs = 5\nport = 1\n'})
    requested = dataclasses.replace(
        request(profile="mine", hardware="rtx-pro-6000", max_num_seqs=7),
        environment=Layer({"max-num-seqs": Setting(6, "environment MAX_NUM_SEQS")}),
    )
    flags = resolved(requested, Catalog([mounted])).flags
    assert flags["max-num-seqs"] == Setting(
        7,
        "test",
        (
            Setting(6, "environment MAX_NUM_SEQS"),
            Setting(5, f"{mounted}/mine.toml [flags]", of_profile=True),
            Setting(8, "128k.toml [flags]", of_profile=True),
        ),
    )
    assert flags["disable-custom-all-reduce"].origin == "nccl/p2p-off.toml [flags]"
    assert not flags["disable-custom-all-reduce"].of_profile


def test_keys_of_a_json_flag_merge_and_keep_their_own_origins() -> None:
    line = Layer({DRAFT_TOKENS: Setting(3, "command line --speculative-config")})
    flags = resolved(dataclasses.replace(request(hardware="b300", model="nvfp4"), command_line=line)).flags
    assert flags[DRAFT_TOKENS].value == 3
    assert [setting.value for setting in flags[DRAFT_TOKENS].overridden] == [2, 1]
    assert flags["speculative-config.moe_backend"].origin == "models/nvfp4.toml [flags]"


def test_a_value_replaces_the_keys_of_a_table_and_a_key_replaces_the_whole() -> None:
    keys = {"a.b": Setting(1, "low"), "a.c": Setting(2, "low"), "ab": Setting(3, "low")}
    into = dict(keys)
    layers.merge(into, {"a": Setting({}, "high")})
    assert into == {"ab": keys["ab"], "a": Setting({}, "high", (keys["a.b"], keys["a.c"]))}
    layers.merge(into, {"a.b": Setting(4, "highest")})
    assert into["a.b"].overridden == (Setting({}, "high"), keys["a.b"], keys["a.c"])
    assert "a" not in into


def test_a_when_block_applies_only_where_all_its_conditions_match(folder: Write) -> None:
    block = '[[when]]\nhardware = ["h200", "b300"]\nmodel = "w4a16"\n[when.flags]\nport = 7\n'
    catalog = Catalog([folder({"mine.toml": 'extends = "64k"\n' + block})])
    ports = {
        model: resolved(request(profile="mine", model=model, hardware="h200"), catalog).flags["port"].value
        for model in ("w4a16", "nvfp4")
    }
    assert ports == {"w4a16": 7, "nvfp4": 8000}


def test_two_places_that_set_the_key_are_refused() -> None:
    requested = request(hardware="h200", api_key=["one"], operator={"VLLM_API_KEY": "two"})
    with pytest.raises(ConfigError, match="both set the API key; remove one") as caught:
        resolved(requested)
    assert "two" not in str(caught.value)
