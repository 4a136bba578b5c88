"""The JSON of `/status`."""

from __future__ import annotations

import json

from dsv4_serve.entrypoint.draft_floors import Floors
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.healthcheck import status
from dsv4_serve.healthcheck.state import Acceptance, Health, LastExit
from dsv4_serve.healthcheck.traffic import Traffic

NOW = 1000.0


def planned(**flags: object) -> dict[str, object]:
    plan = Plan({}, {name.replace("_", "-"): Setting(value, "test") for name, value in flags.items()}, {})
    return {**plan.to_json(), "choices": {"profile": "64k"}}


def test_before_anything_is_known_its_figures_are_null() -> None:
    told = status.as_json(Health(plan=planned(model="/models/m")), NOW)
    assert json.loads(json.dumps(told)) == {
        "models": ["/models/m"],
        "api": {"port": 8000, "tls": False},
        "choices": {"profile": "64k"},
        "phase": "resolving",
        "traffic": None,
        "draft": None,
        "canary_age": None,
        "starts": 1,
        "last_exit": None,
    }


def test_the_served_names_stand_for_the_model_and_the_port_is_the_plans() -> None:
    plan = planned(model="/models/m", served_model_name=["one", "two"], port=8100, ssl_certfile="/tls.pem")
    told = status.as_json(Health(plan=plan), NOW)
    assert (told["models"], told["api"]) == (["one", "two"], {"port": 8100, "tls": True})
    assert status.as_json(Health(plan=planned(model="m", served_model_name="one")), NOW)["models"] == ["one"]


def test_draft_acceptance_is_told_by_position_with_its_floors() -> None:
    gate, live = Acceptance(30, 15, 10, (8, 5, 2)), Acceptance(8, 2, 4, (2,))
    health = Health(floors=Floors(0.3, (0.4, 0.2)), gate_acceptance=gate, live_acceptance=live, below_floor=True)
    told = status.as_json(health, NOW)["draft"]
    assert (told["gate"], told["live"], told["floor"], told["drafted"], told["below_floor"]) == (
        0.5,
        0.25,
        0.3,
        8,
        True,
    )
    assert told["positions"] == [
        {"position": 0, "floor": 0.4, "gate": 0.8, "live": 0.5},
        {"position": 1, "floor": 0.2, "gate": 0.5, "live": None},
        {"position": 2, "floor": None, "gate": 0.2, "live": None},
    ]


def test_traffic_canary_and_last_exit_are_told() -> None:
    ended = LastExit("hung", 83, "no progress for 120 s", "", 1e9)
    health = Health(traffic=Traffic(3, 1, 0.5, 12.5), corruption_at=NOW - 60.04, starts=2, last_exit=ended)
    told = status.as_json(health, NOW)
    assert (told["traffic"]["running"], told["traffic"]["generated_rate"]) == (3, 12.5)
    assert (told["canary_age"], told["starts"], told["last_exit"]["sentence"]) == (60.0, 2, "no progress for 120 s")
