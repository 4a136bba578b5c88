"""The program that asks vLLM for its memory lines: what it starts, when it stops, and what it keeps."""

import json
import os
import sys
import time
import tomllib
from pathlib import Path

import pytest

from qualification.gpu import kv_lines
from tests.support.program import ROOT

SETTINGS = ROOT / "qualification/gpu/kv_lines.toml"
LINES = ["INFO Model loading took 78.78 GiB", "noise", "INFO Available KV cache memory: 30.17 GiB"]
LAST = "INFO Maximum concurrency for 4,096 tokens per request: 19.19x"


def prints(*lines: str, then: str) -> list[str]:
    return [sys.executable, "-c", f"import time\nfor line in {lines!r}: print(line, flush=True)\n{then}"]


@pytest.mark.parametrize(
    ("last", "then", "result"),
    [
        ([LAST], "time.sleep(60)", "sized"),
        ([], "time.sleep(60)", "cut"),
        (["Error: no"], "raise SystemExit(3)", "ended with 3"),
    ],
)
def test_a_start_is_ended_at_the_last_line_of_memory(tmp_path: Path, last: list[str], then: str, result: str) -> None:
    command = prints(*LINES, *last, then=then)
    found = kv_lines.measured(command, dict(os.environ), time.monotonic() + 2, tmp_path / "log")
    assert found["result"] == result
    kept = [line.split(" ", 1)[1] for line in found["lines"]]
    assert kept == [LINES[0], LINES[2], *last]


def test_every_setting_names_a_layout_and_a_drafter_of_its_own() -> None:
    read = tomllib.loads(SETTINGS.read_text())
    names = [setting["name"] for setting in read["setting"]]
    assert len(set(names)) == len(names) == 8
    for setting in read["setting"]:
        command = kv_lines.argv(setting, read["common"], Path("/folder"), 8000)
        assert command.count("--max-model-len") == 1
        drafted = "--speculative-config" in command
        assert drafted == bool(setting["draft_tokens"])
        if drafted:
            speculative = json.loads(command[command.index("--speculative-config") + 1])
            method = "dspark" if "0731" in setting["layout"] else "mtp"
            assert speculative["method"] == method
