"""Every command still answers as tests/golden/record.txt records it."""

from __future__ import annotations

import difflib
import itertools
import os
import subprocess
import sys

import pytest

from tools.golden import RECORD, ROOT
from tools.golden.grid import profile_files

SHOWN = 60


@pytest.mark.process
@pytest.mark.slow
def test_every_command_answers_as_recorded() -> None:
    """In a process of its own: what other tests have imported has read this machine's environment already."""
    argv = [sys.executable, "-m", "tools.golden"]
    keep = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LD_LIBRARY_PATH")}
    run = subprocess.run(
        argv, cwd=ROOT, env={**keep, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    kept = RECORD.read_text(encoding="utf-8")
    if run.stdout != kept:
        changes = difflib.unified_diff(kept.splitlines(), run.stdout.splitlines(), "recorded", "now", n=1, lineterm="")
        shown = list(itertools.islice(changes, SHOWN))
        more = "\n…" if len(shown) == SHOWN else ""
        raise AssertionError(
            "\n".join(["the answers changed:", *shown])
            + f"{more}\nread the diff, then `python -m tools.golden --write`"
        )


def test_every_refusal_of_the_profile_files_is_triggered() -> None:
    kept = RECORD.read_text(encoding="utf-8")
    kinds = (".", "models", "architectures", "hardware", "nccl")
    rules = [rule for kind in kinds for file in profile_files(kind).values() for rule in file.get("refuse", ())]
    assert rules
    for rule in rules:
        assert f"{rule['because']}; {rule['instead']}. To override this, use --skip {rule['name']}." in kept, rule[
            "name"
        ]
