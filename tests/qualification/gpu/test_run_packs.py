"""The steps of the pack job, with a stand-in for `dsv4`: which are run, from which caches, and when the aim is met."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from qualification.gpu import run_packs


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A `dsv4` whose first start takes 600 s from empty caches, and 120 s after an import."""
    done: list[str] = []

    def timed(out: Path, *words: str) -> dict[str, Any]:
        kernels = out / "home/dsv4/build/h200/w4a16/triton/A"
        done.append(f"{words[0]} {words[1]}{'' if kernels.exists() else ', empty'}")
        answer: Any = {}
        if words[0] == "warm":
            filled = {} if kernels.exists() else {"triton": {"files": 8, "mib": 1.0}}
            answer = {"starts": [{"seconds": 120.0 if kernels.exists() else 600.0}], "filled": filled}
        if words[1] == "export":
            Path(words[3]).write_bytes(b"pack")
        if words[0] == "warm" or words[1] == "import":
            kernels.mkdir(parents=True, exist_ok=True)
            (kernels / "k.cubin").touch()
        return {"seconds": 1.0, "answer": answer}

    monkeypatch.setattr(run_packs, "timed", timed)
    return done


def run(monkeypatch: pytest.MonkeyPatch, out: Path, *words: str) -> tuple[int, dict[str, Any]]:
    monkeypatch.setattr(sys, "argv", ["run_packs", "--out", str(out), *words, "--", "--profile", "524k"])
    return run_packs.main(), json.loads((out / "packs.json").read_text())


def test_a_cold_start_a_pack_and_a_start_with_it(
    steps: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    status, found = run(monkeypatch, tmp_path)
    begun = ["warm --without-weights, empty", "kernels export", "kernels import, empty"]
    assert steps == [*begun, "warm --without-weights", "bench --without-weights"]
    assert (status, found["share"], found["compiled"], found["compiled_by_requests"]) == (0, 0.2, 0, 0)


def test_a_pack_of_another_host_needs_no_cold_start(
    steps: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other.tar.xz").write_bytes(b"pack")
    status, found = run(monkeypatch, tmp_path / "out", "--pack", str(tmp_path / "other.tar.xz"))
    assert steps == ["kernels import, empty", "warm --without-weights", "bench --without-weights"]
    assert status == 0
    assert "share" not in found


@pytest.mark.parametrize("change", [{"share": 0.3}, {"compiled": 1}, {"compiled_by_requests": 1}])
def test_the_aim_is_missed(change: dict[str, Any]) -> None:
    met = {"share": 0.2, "compiled": 0, "compiled_by_requests": 0}
    assert run_packs.passed(met)
    assert not run_packs.passed({**met, **change})
