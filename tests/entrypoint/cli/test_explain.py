"""What `dsv4 explain` tells beside the settings: what is not counted, and what is not checked."""

from __future__ import annotations

import json

import pytest

from dsv4_serve.entrypoint.cli.main import main


@pytest.fixture
def choices(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """The rows above the flags, by name."""
    for name in ("PROFILE", "MODEL", "HARDWARE", "TP", "DSV4_SKIP", "DSV4_NCCL", "DSV4_PROFILES"):
        monkeypatch.delenv(name, raising=False)

    def explained(*argv: str) -> dict[str, dict[str, str]]:
        assert main(["explain", "--format", "json", *argv]) == 0
        found: dict[str, dict[str, str]] = json.loads(capsys.readouterr().out)["settings"]
        return found

    return explained


def test_memory_that_is_not_counted_is_said_with_the_reason(choices) -> None:
    row = choices("--profile", "v41", "--hardware", "h200")["memory"]
    assert row["value"] == "not counted"
    assert "KV cache of DeepSeek-V4.1" in row["origin"]
    assert "memory" not in choices("--profile", "64k", "--hardware", "h200")


def test_memory_that_is_short_is_said_with_its_uncertainty(choices) -> None:
    row = choices("--profile", "64k", "--hardware", "rtx-6000d", "--model", "flash")["memory"]
    assert row["value"].startswith("holds 1 of 4 full-length requests at once")
    assert "±" in row["origin"]


def test_flags_that_no_table_knows_are_said_not_to_be_checked(choices) -> None:
    argv = ("--profile", "64k", "--hardware", "h200")
    found = choices(*argv, "--enable-lora", "--all2all-backend", "deepep_low_latency", "--eplb-config.window_size", "9")
    named = found["not checked"]["value"].split(", ")
    assert sorted(named) == ["all2all-backend", "enable-lora", "eplb-config.window_size"]
    assert "not checked" not in choices(*argv, "--moe-backend", "triton")


def test_a_plan_for_more_gpus_than_a_host_has_says_how_many_hosts_it_needs(choices) -> None:
    row = choices("--hardware", "gb10")["hosts"]
    assert row["value"] == 2
    assert row["origin"].endswith("gpus-per-host = 1; add --nnodes 2")
    assert "hosts" not in choices("--hardware", "gb10", "--nnodes", "2")
    assert "hosts" not in choices("--hardware", "h200")
