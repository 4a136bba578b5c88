"""The kernel cache: a changed key finds nothing, the same plan finds what its first start left."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.supervisor import kernel_cache


def plan_of(
    *, hardware: str = "h200", model: str = "w4a16", env: dict[str, str] | None = None, **flags: object
) -> Plan:
    named = {name.replace("_", "-"): Setting(value, "test") for name, value in flags.items()}
    choices = {"hardware": Setting(hardware, "test"), "model-name": Setting(model, "test")}
    return Plan(choices, named, {name: Setting(value, "test") for name, value in (env or {}).items()})


VERSIONS = {"vllm": "0.32.0", "torch": "2.13.0"}
PATCHES = {"patches": [{"sha256": "aa", "state": "applied"}]}


@pytest.mark.parametrize(
    ("versions", "patches"),
    [
        (VERSIONS | {"torch": "2.13.1"}, PATCHES),
        (VERSIONS | {"flashinfer-python": "0.7.0"}, PATCHES),
        (VERSIONS, {"patches": [{"sha256": "bb", "state": "applied"}]}),
        (VERSIONS, {"patches": [{"sha256": "aa", "state": "pending"}]}),
        (VERSIONS, {"error": "no vllm"}),
    ],
)
def test_another_version_or_patch_is_another_build(versions: dict[str, str], patches: dict[str, object]) -> None:
    assert kernel_cache.build(versions, patches) != kernel_cache.build(VERSIONS, PATCHES)


def test_the_folder_is_keyed_by_build_hardware_and_model() -> None:
    environ = {"DSV4_CACHE": "/var/cache/dsv4"}
    folders = {
        kernel_cache.folder_of(plan, build, environ)
        for plan in (plan_of(), plan_of(hardware="b300"), plan_of(model="nvfp4"))
        for build in ("a", "b")
    }
    assert len(folders) == 6
    assert kernel_cache.folder_of(plan_of(), "a", environ) == Path("/var/cache/dsv4/a/h200/w4a16")


def test_every_compiler_caches_there_unless_its_own_variable_is_set(tmp_path: Path) -> None:
    plan = kernel_cache.placed(plan_of(env={"VLLM_CACHE_ROOT": "/mine"}), {"TRITON_CACHE_DIR": "/yours"}, tmp_path)
    assert plan.env["VLLM_CACHE_ROOT"].value == "/mine"
    assert "TRITON_CACHE_DIR" not in plan.env
    assert plan.env["HUMMING_CACHE_DIR"].value == str(tmp_path / "humming")
    assert len(plan.env) == len(kernel_cache.VARIABLES) - 1


def test_the_second_start_of_a_plan_is_a_hit_and_says_what_it_saved(tmp_path: Path) -> None:
    first = kernel_cache.find(plan_of(max_model_len=4096), tmp_path)
    assert "miss" in first.sentence()
    assert first.saved(10) is None
    first.keep(312.0, {"compiling kernels": 250.0})
    second = kernel_cache.find(plan_of(max_model_len=4096), tmp_path)
    assert "by a start that took 312 s" in second.sentence()
    assert second.saved(80.0) == 232.0
    assert second.last_start == {}
    second.keep(80.0, {"compiling kernels": 5.0})
    third = kernel_cache.find(plan_of(max_model_len=4096), tmp_path)
    assert third.filled["seconds"] == 312.0
    assert third.filled["phases"] == {"compiling kernels": 250.0}
    assert third.last_start == {"compiling kernels": 5.0}


def test_another_shape_is_a_miss_and_another_port_is_not(tmp_path: Path) -> None:
    kernel_cache.find(plan_of(max_model_len=4096, port=8000), tmp_path).keep(1.0, {})
    assert kernel_cache.find(plan_of(max_model_len=4096, port=8100), tmp_path).filled
    assert not kernel_cache.find(plan_of(max_model_len=8192, port=8000), tmp_path).filled
    other = dataclasses.replace(plan_of(max_model_len=4096, port=8000), env={"VLLM_X": Setting("1", "")})
    assert not kernel_cache.find(other, tmp_path).filled
    names = ("MAX_JOBS", "VLLM_ENABLE_STARTUP_PLAN", "VLLM_TRITON_JIT_WARMUP_NUM_THREADS")
    jobs = dataclasses.replace(plan_of(max_model_len=4096, port=8000), env=dict.fromkeys(names, Setting("2", "")))
    assert kernel_cache.find(jobs, tmp_path).filled


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seconds": "x", "date": ""}'])
def test_a_note_that_cannot_be_read_is_a_miss(tmp_path: Path, text: str) -> None:
    cache = kernel_cache.find(plan_of(), tmp_path)
    cache.note.parent.mkdir(parents=True)
    cache.note.write_text(text)
    assert not kernel_cache.find(plan_of(), tmp_path).filled


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kernel_cache.find(plan_of(), tmp_path / "file").keep(1.0, {})


def test_the_users_cache_is_the_place_where_none_is_named() -> None:
    assert kernel_cache.root({"HOME": "/home/me"}) == Path("/home/me/.cache/dsv4")
    assert kernel_cache.root({"HOME": "/home/me", "XDG_CACHE_HOME": "/c"}) == Path("/c/dsv4")
