"""`PROFILE=auto`: the largest profile that fits, and the reason why the next larger one does not."""

from __future__ import annotations

import re

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


def box(hardware: str, gpus: int):
    return lambda: HostGpus(hardware, f"NVML: {gpus} of them", gpus)


def context(catalog: Catalog, profile: Setting) -> int:
    return catalog.profile(profile.value, "").flags()["max-model-len"]


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


def test_a_profile_that_takes_host_memory_is_not_chosen_without_being_named(folder) -> None:
    text = 'about = "more, with copies"\nextends = "524k"\n[flags]\nkv-offloading-size = 64\nmax-model-len = 1048576\n'
    catalog = Catalog([folder({"largest.toml": text + "max-num-seqs = 3\n"})])
    for goal in auto.NAMES:
        chosen = auto.settle(catalog, request_for(goal, hardware="h200", model="w4a16"), nowhere).choices["profile"]
        assert chosen.value in {"640k", "1m", "shared"}
        assert "largest" not in chosen.origin


def test_a_profile_by_name_comes_back_as_it_is() -> None:
    request = request_for("524k", hardware="h200")
    assert auto.settle(CATALOG, request, nowhere) is request


def test_no_profile_comes_back_as_it_is() -> None:
    assert auto.settle(CATALOG, Request(), nowhere) == Request()


@pytest.mark.parametrize(("goal", "profile"), [("auto", "640k"), ("auto:context", "1m"), ("auto:throughput", "shared")])
def test_where_all_fit_the_goal_decides(goal, profile) -> None:
    found = settled(request_for(goal, hardware="h200", model="w4a16"))
    assert found == Setting(profile, f"environment PROFILE {goal}: {profile} fits 2 x h200 with w4a16")


@pytest.mark.parametrize(("gpus", "requests"), [(2, 2), (4, 4), (8, 8)])
@pytest.mark.parametrize("hardware", ["rtx-pro-6000", "h200", "b300"])
def test_auto_serves_at_least_one_request_a_gpu_and_splits_the_model_over_as_many_as_it_can(
    hardware, gpus, requests
) -> None:
    settled_request = auto.settle(CATALOG, request_for(), box(hardware, gpus))
    plan = resolve(select(CATALOG, settled_request, box(hardware, gpus)), settled_request)
    profile = CATALOG.profile(settled_request.choices["profile"].value, "")
    assert (profile.get("requests") or plan.value("max-num-seqs")) >= requests
    allowed = [size for size in profile.get("tensor_parallel_sizes") if size <= gpus]
    assert plan.tensor_parallel_size == max(allowed)
    assert plan.flags["tensor-parallel-size"].origin == f"auto: {gpus} GPUs"


def test_a_size_of_the_user_is_kept() -> None:
    request = auto.settle(CATALOG, request_for(tensor_parallel_size=2), box("h200", 4))
    assert request.flag("tensor-parallel-size") == Setting(2, "test")


def test_an_unknown_goal_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(
        ConfigError, match=r"no 'auto:thruput' \(did you mean auto:throughput\?\)\. Known: auto, auto:context"
    ):
        settled(request_for("auto:thruput", hardware="h200"))


def test_a_profile_for_another_kind_of_model_is_chosen_only_where_it_is_requested() -> None:
    assert settled(request_for("auto:throughput"), box("b300", 8)).value == "shared"
    assert settled(request_for("auto:throughput", model="pro-nvfp4"), box("b300", 8)).value == "pro"


def test_where_no_profile_fits_in_full_the_one_that_holds_the_most_of_its_requests_is_taken() -> None:
    profile = settled(request_for(max_num_seqs=90), box("rtx-6000d", 2))
    assert profile.value in ("64k", "throughput")
    found = re.search(
        r"no profile fits in full; \w+ holds (\d+) of its 90 requests on .*; 90 requests need", profile.origin
    )
    assert found
    assert 0 < int(found[1]) < 90


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
    assert context(small, Setting(larger, "")) > context(small, profile)
    assert "of KV cache" in because
    assert because.endswith("GiB remain")


def test_less_memory_never_gets_a_larger_profile(small) -> None:
    taken = [
        context(
            small,
            auto.settle(small, request_for("auto:context", hardware=name, model="own"), nowhere).choices["profile"],
        )
        for name in ("rtx-pro-6000", "card-90", "card-81")
    ]
    assert taken == sorted(taken, reverse=True)
    assert taken[0] > taken[-1]


def test_the_gpus_are_looked_at_once_when_none_are_named() -> None:
    looks = []

    def find() -> HostGpus:
        looks.append(1)
        return HostGpus("h200", "NVML: 2 x NVIDIA H200", 2)

    assert settled(request_for(), find).value == "640k"
    assert looks == [1]


def test_where_one_gpu_is_too_small_the_weights_are_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"no profile fits h200; \w+: the weights take 155.3 GiB per GPU"):
        settled(request_for(model="w4a16"), box("h200", 1))


def test_a_profile_for_more_gpus_is_not_named_where_memory_rules_another_out(small) -> None:
    profile = auto.settle(small, request_for(model="own"), lambda: HostGpus("card-81", "NVML: 2 cards", 2)).choices[
        "profile"
    ]
    assert profile.value == "64k"
    assert "; throughput: 16 requests need " in profile.origin


def test_weights_that_fit_nowhere_are_the_reason(small) -> None:
    with pytest.raises(ConfigError, match=r"no profile fits card-60; .*the weights take \d+\.\d GiB per GPU"):
        auto.settle(small, request_for(model="own"), lambda: HostGpus("card-60", "NVML: 2 cards", 2))


def test_a_profile_for_four_gpus_is_not_taken_where_gpus_are_not_counted() -> None:
    throughput = request_for("auto:throughput", hardware="rtx-pro-6000")
    found = auto.candidates(CATALOG, throughput, HostGpus("rtx-pro-6000", ""))
    order = [one.profile for one in auto.ranked(CATALOG, found, auto.THROUGHPUT, None)]
    assert order.index("throughput") > order.index("64k")


def test_the_reason_counts_the_gpus_of_all_data_parallel_ranks() -> None:
    taken = settled(request_for(hardware="b200", tensor_parallel_size=1))
    assert taken.origin.startswith("environment PROFILE auto: 64k-dp fits 4 x b200 with nvfp4")


@pytest.mark.parametrize("context", ["auto", -1])
def test_a_profile_that_leaves_its_context_to_vllm_comes_last(folder, context) -> None:
    catalog = Catalog([folder({"mine.toml": f"[flags]\nmax-model-len = {context!r}\n"})])
    gpus = HostGpus("h200", "", 2)
    found = auto.candidates(catalog, request_for(model="w4a16"), gpus)
    ordered = auto.ranked(catalog, found, auto.CONTEXT, gpus.count)
    assert ordered[-1].profile == "mine"
    assert ordered[-1].context == 0


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
        wanted = request_for("auto:context", hardware="card-90", model="own", **flags)
        return context(small, auto.settle(small, wanted, nowhere).choices["profile"])

    assert taken(max_num_batched_tokens=16_384) < taken(max_num_batched_tokens=2048)


def test_profiles_for_other_hardware_are_no_reason() -> None:
    assert "pro:" not in settled(request_for(hardware="rtx-pro-6000", model="nvfp4")).origin
    assert "demo" not in settled(request_for(hardware="rtx-pro-6000", model="nvfp4")).origin


def test_a_plan_whose_memory_is_not_counted_is_not_chosen() -> None:
    found = auto.candidates(CATALOG, request_for(model="flash", data_parallel_size=2), HostGpus("h200", "", 4))
    assert {one.fits for one in found if one.selection and one.memory is None} <= {False}


def test_one_large_gpu_serves_two_requests() -> None:
    assert settled(request_for(), box("b300", 1)).value == "640k"


def test_where_nothing_fits_the_answer_says_how_many_gpus_would_do() -> None:
    with pytest.raises(ConfigError, match=r" 2 x gb10 would do; those of other hosts count with --nnodes\.$"):
        settled(request_for(), box("gb10", 1))


def test_gpus_of_all_nodes_count() -> None:
    request = auto.settle(CATALOG, request_for(nnodes=2), box("gb10", 1))
    assert request.choices["profile"].value == "640k"
    assert request.flag("tensor-parallel-size") == Setting(2, "auto: 1 GPU on each of 2 nodes")


def test_a_profile_for_one_other_kind_of_gpu_is_not_chosen(folder) -> None:
    flags = "[flags]\nmax-model-len = 1048576\nmax-num-seqs = 4\n"
    catalog = Catalog([folder({"mine.toml": f'hardware = ["b300"]\n{flags}'})])
    assert auto.settle(catalog, request_for(), box("h200", 4)).choices["profile"].value == "256k"
    assert auto.settle(catalog, request_for(), box("b300", 4)).choices["profile"].value == "mine"


@pytest.mark.parametrize(
    ("hardware", "gpus", "taken"), [("h200", 16, 8), ("h200", 8, 8), ("rtx-pro-6000", 16, 16), ("b300", 16, 8)]
)
def test_more_gpus_than_a_host_has_are_taken_where_no_fewer_hold_it(hardware: str, gpus: int, taken: int) -> None:
    found = auto.settle(CATALOG, request_for(model="pro", hardware=""), box(hardware, gpus))
    size = found.flag("tensor-parallel-size")
    assert size
    assert size.value == taken


@pytest.mark.parametrize("goal", auto.NAMES)
@pytest.mark.parametrize("hardware", ["rtx-pro-6000", "rtx-pro-6000-max-q", "gb10"])
def test_no_model_that_garbled_on_sm_12_is_chosen_where_another_one_fits(hardware: str, goal: str) -> None:
    found = auto.settle(CATALOG, request_for(goal), box(hardware, 2))
    selection = select(CATALOG, found, box(hardware, 2))
    assert selection.model.get("scheme") != "w4a16"
