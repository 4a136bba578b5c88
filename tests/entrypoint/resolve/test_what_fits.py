"""What fits a box: every profile with every model and size, and the figures that belong to them."""

from __future__ import annotations

import dataclasses
import functools

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.cli import what_fits_text
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.resolve import memory_inputs
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import select
from dsv4_serve.entrypoint.resolve.what_fits import WhatFits, what_fits
from tests.support.plans import CATALOG, request


@functools.cache
def box(hardware: str, gpus: int, catalog: Catalog = CATALOG, **requested) -> WhatFits:
    return what_fits(catalog, request(**requested), HostGpus(hardware, "test", gpus))


def four() -> WhatFits:
    return box("rtx-pro-6000", 4)


def test_what_is_listed_resolves_and_holds_as_many_requests_as_it_says() -> None:
    for fit in four().fits:
        one = request(profile=fit.profile, model=fit.model, hardware="rtx-pro-6000", tensor_parallel_size=fit.gpus)
        selection = select(CATALOG, one, lambda: pytest.fail("the hardware was named"))
        memory = memory_inputs.estimate(selection, resolve(selection, one).flags)
        assert memory
        assert fit.held == min(memory.steady_state_requests, fit.requests) or fit.held == fit.requests
        assert fit.held > 0
        assert memory.admits


def test_a_pair_is_either_listed_or_counted_as_missing() -> None:
    listed = {(fit.profile, fit.model) for fit in four().fits}
    missing = {(profile, model) for profile, model, _size in four().missing}
    assert listed.isdisjoint(missing)
    for name in CATALOG.names("profile"):
        profile = CATALOG.profile(name, "")
        if not four().hardware.is_one_of(profile.get("hardware")):
            continue
        models = {model.name for model in CATALOG.every_model() if model.is_one_of(profile.get("models"))}
        assert {(name, model) for model in models} <= listed | missing


def test_the_default_is_what_serve_would_take() -> None:
    assert (four().choices[""].profile, four().choices[""].model) == ("524k", "flash-0731-nvfp4")
    assert four().choices["auto"].gpus == 4


def test_a_figure_belongs_to_its_model_its_kind_of_gpu_and_its_number() -> None:
    def measured(found: WhatFits) -> set[tuple[str, str, int]]:
        return {(fit.profile, fit.model, fit.gpus) for fit in found.fits if fit.measured}

    here = measured(four())
    assert ("throughput", "w4a16", 4) in here
    assert ("524k", "acti", 2) in here  # on Max-Q, which extends this hardware
    assert ("524k", "acti", 4) not in here
    assert measured(box("rtx-6000d", 4)) == set()
    assert measured(box("h200", 2)) == {("64k", "w4a16", 2)}


def test_a_requested_model_is_the_only_one() -> None:
    assert {fit.model for fit in box("h200", 4, model="w4a16").fits} == {"w4a16"}


def test_sizes_are_the_files_not_what_gpus_hold() -> None:
    assert {fit.disk_gib for fit in four().fits if fit.model == "w4a16"} == {158.19}
    assert {fit.disk_gib for fit in four().fits if fit.model == "acti"} == {146.1}


def test_where_the_default_cannot_start_the_reason_is_told() -> None:
    found = box("h100", 2)
    assert found.fits == ()
    assert found.choices[""].why_not
    assert "Nothing fits." in what_fits_text.text(found, named=True)
    with pytest.raises(ConfigError, match="no hardware 'nope'"):
        box("nope", 2)


@pytest.mark.parametrize(("hardware", "gpus"), [("rtx-pro-6000", 4), ("b300", 8), ("h100", 2), ("gb10", 1)])
def test_the_text_is_readable_at_80_columns(hardware, gpus) -> None:
    for line in what_fits_text.text(box(hardware, gpus), named=True).splitlines():
        assert len(line) <= 80 or " " not in line.strip(), line


def test_the_text_marks_the_default_quotes_figures_and_says_how_to_see_what_is_missing() -> None:
    text = what_fits_text.text(four(), named=True)
    [marked] = [line for line in text.splitlines() if line.startswith("* ")]
    assert marked.split()[1] == "flash-0731-nvfp4"
    assert "107 for one, 584 for 16 [" in text
    assert "0.21 main 50d9dd902" in text
    assert "dsv4 fit --profile" in " ".join(text.split())
    partly = dataclasses.replace(four().fits[0], requests=8, held=2)
    assert " 2 of 8 " in what_fits_text.text(dataclasses.replace(four(), fits=(partly,)), named=False)


def test_json_has_the_same() -> None:
    data = four().to_json()
    assert data["gpus"] == 4
    assert len(data["fits"]) == len(four().fits)
    assert {
        "profile",
        "model",
        "context",
        "requests",
        "held",
        "gpus",
        "replicas",
        "disk-gib",
        "measured",
        "community",
    } == set(data["fits"][0])
    assert data["choices"]["auto:throughput"]["profile"]
    assert len(data["does-not-fit"]) == len(four().missing)


def test_requests_of_data_parallel_replicas_are_told_for_each() -> None:
    found = box("h200", 4, model="flash")
    [spread] = [fit for fit in found.fits if fit.profile == "64k-dp"]
    assert (spread.gpus, spread.replicas, spread.held) == (4, 4, 16)
    assert " 4 x 16 " in what_fits_text.text(found, named=True)


def test_hosts_with_one_gpu_are_told_how_many_would_do_and_count_together() -> None:
    alone, together = box("gb10", 1), box("gb10", 1, nnodes=2)
    assert (alone.fits, alone.enough) == ((), 2)
    assert "--nodes N" in what_fits_text.text(alone, named=True)
    assert together.gpus == 2
    assert {fit.gpus for fit in together.fits} == {2}
    assert together.choices["auto"].gpus == 2


def test_the_default_is_a_profile_that_starts_and_auto_agrees() -> None:
    found = box("rtx-6000d", 2)
    assert found.choices[""].profile == found.choices["auto"].profile == "64k"
    assert not found.choices[""].short
    assert "* acti" in what_fits_text.text(found, named=True)


def test_a_choice_says_what_it_holds_less_than_it_promises() -> None:
    found = box("rtx-6000d", 2, model="flash")
    short = found.choices[""].short
    assert short.startswith("holds 1 of 4 ")
    assert " ".join(what_fits_text.text(found, named=True).split()).count(short) >= 1


@pytest.mark.parametrize(("hardware", "gpus", "enough"), [("h100", 1, 4), ("gb10", 1, 2), ("h100", 4, 0)])
def test_the_fewest_gpus_that_would_do_are_named(hardware: str, gpus: int, enough: int) -> None:
    assert box(hardware, gpus).enough == enough
