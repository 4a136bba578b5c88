"""What a result says about its host."""

from __future__ import annotations

import datetime as dt
import platform
from pathlib import Path

import pytest

from qualification.gpu import this_host

GPUS = "NVIDIA H200, 143771 MiB, 580.159.04\nNVIDIA H200, 143771 MiB, 580.159.04"


@pytest.mark.process
def test_the_gpus_are_those_that_the_driver_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{GPUS}\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert this_host.hardware() == ("h200", "2 x NVIDIA H200, 143771 MiB, 580.159.04")


def test_a_result_has_a_date_and_versions_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(this_host, "PACKAGES", ("pytest", "no-such-package"))
    found = this_host.facts()
    assert dt.date.fromisoformat(found["date"]) <= dt.datetime.now(dt.UTC).date()
    assert found["hardware"] == "no GPU"
    assert found["versions"] == {
        "python": platform.python_version(), "pytest": pytest.__version__, "no-such-package": "absent",
    }  # fmt: skip
