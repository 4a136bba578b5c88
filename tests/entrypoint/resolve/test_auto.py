"""`PROFILE=auto`: the largest profile that fits, and the reason why the next larger one does not."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.catalog import listing
from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.plan import Setting
from dsv4_serve.entrypoint.request import Layer, Request
from dsv4_serve.entrypoint.resolve import auto, memory_inputs
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import select

CATALOG = Catalog([])


def request_for(profile: str = "auto", *, hardware: str = "", model: str = "", **flags) -> Request:
    choices = {"profile": Setting(profile, "environment PROFILE")}
    choices |= {"hardware": Setting(hardware, "test")} if hardware else {}
    choices |= {"model": Setting(model, "test")} if model else {}
    settings = {name.replace("_", "-"): Setting(value, "test") for name, value in flags.items()}
    return Request(choices, command_line=Layer(settings))


def nowhere() -> HostGpus:
    return pytest.fail("the hardware was named")


def settled(request: Request, find=nowhere) -> Setting:
    return auto.settle(CATALOG, request, find).choices["profile"]


@pytest.fixture
def small(folder) -> Catalog:
    """RTX PRO 6000 with less memory, so that something does not fit, and a model of 71 GiB a GPU at TP=2."""
    text = '{about}\nextends = "rtx-pro-6000"\nmemory-gib = {memory}\n'
    files = {
        f"hardware/card-{memory}.toml": text.format(about='about = "a smaller card"', memory=memory)
        for memory in (60, 81, 90)
    }
    files["models/own.toml"] = 'extends = "w4a16"\nweights-gib = 140\nreplicated-gib = 2.0\n'
    return Catalog([folder(files)])


def test_a_profile_by_name_comes_back_as_it_is() -> None:
    request = request_for("524k", hardware="h200")
    assert auto.settle(CATALOG, request, nowhere) is request


def test_no_profile_comes_back_as_it_is() -> None:
    assert auto.settle(CATALOG, Request(), nowhere) == Request()


def test_the_largest_profile_is_taken_where_all_fit() -> None:
    profile = settled(request_for(hardware="h200", model="w4a16"))
    assert profile == Setting("1m", "environment PROFILE auto: 1m fits 2 x h200 with w4a16")


@pytest.mark.parametrize("model", ["own", "acti", "w4a16", "nvfp4", "flash", ""])
@pytest.mark.parametrize("hardware", ["rtx-pro-6000", "h200", "b300", "card-60", "card-81", "card-90"])
def test_what_auto_takes_resolves_and_holds_what_it_promises(small, hardware, model) -> None:
    request = request_for(hardware=hardware, model=model)
    try:
        request = auto.settle(small, request, nowhere)
    except ConfigError as error:
        assert "no profile fits" in str(error)
        return
    selection = select(small, request, nowhere)
    memory = memory_inputs.estimate(selection, resolve(selection, request).flags)
    assert memory is not None
    assert memory.steady_state_requests >= memory.requests


def test_the_reason_of_the_next_larger_profile_is_in_the_origin(small) -> None:
    profile = auto.settle(small, request_for(hardware="card-81", model="own"), nowhere).choices["profile"]
    taken, reason = profile.origin.split("; ")
    assert taken == f"environment PROFILE auto: {profile.value} fits 2 x card-81 with own"
    larger, because = reason.split(": ")
    order = auto.largest_first(small)
    assert order.index(larger) < order.index(profile.value)
    assert "of KV cache" in because
    assert because.endswith("GiB remain")


def test_less_memory_never_gets_a_larger_profile(small) -> None:
    order = auto.largest_first(small)
    taken = [
        order.index(auto.settle(small, request_for(hardware=name, model="own"), nowhere).choices["profile"].value)
        for name in ("rtx-pro-6000", "card-90", "card-81")
    ]
    assert taken == sorted(taken)
    assert taken[0] < taken[-1]


def test_the_gpus_are_looked_at_once_when_none_are_named() -> None:
    looks = []

    def find() -> HostGpus:
        looks.append(1)
        return HostGpus("h200", "NVML: 2 x NVIDIA H200", 2)

    assert settled(request_for(), find).value == "1m"
    assert looks == [1]


def test_too_few_gpus_are_the_reason() -> None:
    with pytest.raises(ConfigError, match="no profile fits h200; .*-size 2, but this process sees 1 GPU"):
        settled(request_for(model="w4a16"), lambda: HostGpus("h200", "NVML: 1 x NVIDIA H200", 1))


def test_a_profile_for_more_gpus_is_not_named_where_memory_rules_another_out(small) -> None:
    profile = auto.settle(small, request_for(model="own"), lambda: HostGpus("card-81", "NVML: 2 cards", 2)).choices[
        "profile"
    ]
    assert profile.value == "64k"
    assert "; 128k: 8 requests need " in profile.origin


def test_weights_that_fit_nowhere_are_the_reason(small) -> None:
    with pytest.raises(ConfigError, match=r"no profile fits card-60; .*the weights take \d+\.\d GiB per GPU"):
        auto.settle(small, request_for(model="own"), lambda: HostGpus("card-60", "NVML: 2 cards", 2))


def test_a_profile_for_four_gpus_is_not_taken_where_gpus_are_not_counted() -> None:
    assert auto.largest_first(CATALOG).index("throughput") > auto.largest_first(CATALOG).index("64k")
    counted = auto.largest_first(CATALOG, gpus=4)
    assert counted.index("throughput") < counted.index("64k")


@pytest.mark.parametrize("context", ["auto", -1])
def test_a_profile_that_leaves_its_context_to_vllm_comes_last(folder, context) -> None:
    catalog = Catalog([folder({"mine.toml": f"[flags]\nmax-model-len = {context!r}\n"})])
    assert auto.largest_first(catalog, gpus=2)[-1] == "mine"


@pytest.mark.parametrize(
    "look", [lambda catalog: auto.settle(catalog, request_for(hardware="h200"), nowhere), listing.listing]
)
def test_a_flag_that_vllm_would_refuse_is_refused_before_profiles_are_compared_or_listed(folder, look) -> None:
    catalog = Catalog([folder({"mine.toml": "[flags]\nmax-model-len = 'abc'\n"})])
    with pytest.raises(ConfigError, match="max-model-len = 'abc' has the wrong type"):
        look(catalog)


def test_unknown_hardware_is_reported_with_the_origin_of_its_name() -> None:
    with pytest.raises(ConfigError, match="^test: there is no hardware 'nope'"):
        settled(request_for(hardware="nope"))


def test_the_model_decides_too() -> None:
    assert settled(request_for(hardware="b300", model="pro-nvfp4", tensor_parallel_size=8)).value == "pro"


def test_settings_of_the_user_are_counted(small) -> None:
    def taken(**flags) -> int:
        request = auto.settle(small, request_for(hardware="card-90", model="own", **flags), nowhere)
        return auto.largest_first(small).index(request.choices["profile"].value)

    assert taken(max_num_batched_tokens=16_384) > taken(max_num_batched_tokens=2048)


def test_profiles_for_other_hardware_are_no_reason() -> None:
    assert "pro:" not in settled(request_for(hardware="rtx-pro-6000", model="nvfp4")).origin
    assert "demo" not in settled(request_for(hardware="rtx-pro-6000", model="nvfp4")).origin
