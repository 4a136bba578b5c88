"""The settings of the supervisor: layered like flags, checked where they are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_serve.entrypoint import supervision_settings
from dsv4_serve.entrypoint.draft_floors import Floors
from dsv4_serve.entrypoint.errors import ConfigError, UsageError
from dsv4_serve.entrypoint.plan import Setting

PLAN = {"PROFILE": "524k", "HARDWARE": "h200"}


def settings_of(dsv4: Callable, *argv: str, **env: str) -> dict:
    done = dsv4("explain", "--format", "json", *argv, **PLAN | env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["settings"]


def test_every_setting_has_a_default_and_says_so() -> None:
    assert {s.origin for s in supervision_settings.defaults().values()} == {"default of dsv4"}
    assert supervision_settings.read({}) == supervision_settings.Supervision()


def test_profile_environment_and_command_line_win_in_that_order(dsv4: Callable, folder: Callable[..., Path]) -> None:
    mounted = folder(
        {"mine.toml": 'extends = "524k"\n[gate]\ntokens = 10\nbelow-floor = "warn"\n[supervise]\npoll = 1\n'}
    )
    found = settings_of(
        dsv4, "--gate.tokens", "30", PROFILE="mine", DSV4_PROFILES=str(mounted), DSV4_GATE_TOKENS="20",
        DSV4_SUPERVISE_STALL_LOADING_WEIGHTS="99",
    )  # fmt: skip
    assert found["gate.tokens"]["value"] == 30
    assert [s["value"] for s in found["gate.tokens"]["overridden"]] == [20, 10, 48]
    assert found["gate.below-floor"]["origin"].endswith("mine.toml [gate]")
    assert found["supervise.poll"]["value"] == 1
    assert found["supervise.stall.loading-weights"]["value"] == 99
    assert found["supervise.stall.proving"]["origin"] == "default of dsv4"


def test_one_floor_stands_in_for_the_table_of_floors(dsv4: Callable) -> None:
    found = settings_of(dsv4, DSV4_GATE_ACCEPTANCE_FLOOR="0.7")
    assert found["gate.acceptance-floor"]["value"] == 0.7
    assert "gate.acceptance-floor.1" not in found


def test_the_floors_of_a_drafter_are_those_of_its_positions_and_the_total_is_their_mean() -> None:
    settings = supervision_settings.read({})
    assert settings.floors("mtp", 1) == Floors(0.4, (0.4,))
    assert settings.floors("mtp", 3).total == pytest.approx(0.25)
    assert settings.floors("mtp", 4).positions == (0.4, 0.2, 0.15, 0.15)
    assert settings.floors("dspark", 5).positions == (0.35, 0.25, 0.15, 0.1, 0.08)
    assert settings.floors("dspark", 5).total == pytest.approx(0.186)


def test_the_floors_lie_between_public_figures_of_sound_and_of_collapsed_drafters() -> None:
    dspark = supervision_settings.read({}).floors("dspark", 5)
    sound = (0.579, 0.447, 0.316, 0.237, 0.158)  # vllm#41834, 2026-08-01, 2 x GB10, k = 5
    assert all(share > floor for share, floor in zip(sound, dspark.positions, strict=True))
    assert dspark.total > 0.46 / 5  # vllm#51009, 2026-08, 2 x GB10, k = 5: mean acceptance length 1.46


def test_a_floor_of_a_plan_replaces_the_mean_and_bounds_the_positions() -> None:
    settings = supervision_settings.read(
        {f"gate.acceptance-floor.{k}": Setting(v, "") for k, v in ((1, 0.6), (2, 0.5), (3, 0.3))}
    )
    assert [settings.floors("mtp", k).total for k in (1, 2, 3)] == [0.6, 0.5, 0.3]
    assert settings.floors("mtp", 4).total == pytest.approx(0.225)
    assert supervision_settings.read({"gate.acceptance-floor": Setting(0.9, "")}).floors("mtp", 3).total == 0.9
    none = supervision_settings.read({"gate.acceptance-floor": Setting(0, "")}).floors("dspark", 3)
    assert none == Floors(0.0, (0.0, 0.0, 0.0))


def test_the_floors_of_positions_are_set_by_drafter(dsv4: Callable) -> None:
    found = settings_of(dsv4, DSV4_GATE_POSITION_FLOORS_MTP="0.5, 0.3")
    assert found["gate.position-floors.mtp"]["value"] == [0.5, 0.3]
    assert found["gate.position-floors.dspark"]["value"][0] == 0.35
    assert (
        supervision_settings.read({"gate.position-floors.mtp": Setting([0.5, 0.3], "")}).floors("mtp", 2).total == 0.4
    )


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("gate.tokns", 1, "did you mean tokens?"),
        ("gate.tokens", 0, "greater than or equal to 1"),
        ("gate.tokens.inner", 1, "no setting"),
        ("gate.below-floor", "die", "'refuse', 'warn' or 'degrade'"),
        ("gate.acceptance-floor", 1.5, "not valid"),
        ("gate.acceptance-floor.one", 0.5, "not valid"),
        ("gate.position-floors.mtp", [1.5], "not valid"),
        ("gate.position-floors.eagle", [0.5], "'mtp' or 'dspark'"),
        ("gate.signs", ["smell"], "not valid"),
        ("supervise.poll", -1, "greater than 0"),
        ("supervise.poll", "inf", "finite number"),
        ("supervise.drain-wait", "inf", "finite number"),
        ("supervise.stall.proving", float("nan"), "not valid"),
        ("supervise.stall.loading", 1, "did you mean loading-weights?"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_where_it_was_written(name: str, value: object, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        supervision_settings.check(name, value, "mine.toml")
    assert str(caught.value).startswith("mine.toml: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("gate.new", 1), ("supervise.new.one", 1), ("gate.tokens", "x")])
def test_a_plan_of_another_version_is_answered_in_one_sentence(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^the replica's plan .*{name}.*\.$"):
        supervision_settings.read({name: Setting(value, "")})


def test_a_misspelt_variable_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"DSV4_GATE_TOKNS: there is no such setting \(did you mean DSV4_GATE_TOKENS\?\)"
    ):
        supervision_settings.from_environment({"DSV4_GATE_TOKNS": "3"})


def test_an_option_without_its_value_is_refused() -> None:
    with pytest.raises(UsageError, match="--gate.tokens needs a value"):
        supervision_settings.from_command_line(["--gate.tokens", "--x"])


def test_explain_shows_only_what_differs_from_the_defaults(dsv4: Callable) -> None:
    done = dsv4("explain", "--profile", "524k", "--hardware", "h200", DSV4_GATE_TOKENS="12")
    assert "gate.tokens" in done.stdout
    assert "gate.agreement-floor" not in done.stdout


def test_a_renamed_setting_is_refused_with_its_new_name() -> None:
    with pytest.raises(ConfigError, match=r"x: supervise\.compile-ahead was renamed to supervise\.prebuild"):
        supervision_settings.check("supervise.compile-ahead", [], "x")
    with pytest.raises(
        ConfigError, match=r"environment DSV4_SUPERVISE_COMPILE_AHEAD: .* was renamed to supervise\.prebuild"
    ):
        supervision_settings.from_environment({"DSV4_SUPERVISE_COMPILE_AHEAD": "a:b"})
