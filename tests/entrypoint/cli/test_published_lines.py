"""
Commands that people published: accepted as written, or answered once with everything that has to change.

The answer is followed to the letter, and the line is accepted then; or it says why nothing leads on.
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.cli.main import main

LINES: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("published_lines.toml").read_text())["line"]
CHANGE = re.compile(r"(?:lower|raise|set) (?:--)?(tp|[a-z]+-[a-z-]+) (?:to )?([\d.]*\d)")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's environment or cache decides."""
    for name in set(os.environ) - {"PATH", "HOME"}:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path))


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return the problems that `dsv4 explain` has with a line; none for an accepted one."""

    def problems(line: dict[str, Any], flags: list[str], unset: tuple[str, ...] = ()) -> list[str]:
        with monkeypatch.context() as patched:
            for name, value in line.get("env", {}).items():
                if name not in unset:
                    patched.setenv(name, value)
            named = [w for key in ("hardware", "profile", "model") if key in line for w in (f"--{key}", line[key])]
            status = main(["explain", *named, *flags])
        stderr = capsys.readouterr().err.removeprefix("dsv4: ").strip()
        assert (status == 0) == (not stderr)
        return [re.sub(r"^\d+\. ", "", one) for one in stderr.splitlines() if not one.endswith(" problems:")]

    return problems


def is_of_memory(problem: str) -> bool:
    return problem.endswith(("use --skip weights.", "use --skip kv-cache."))


def changed(flags: list[str], problem: str) -> list[str]:
    """Flags with the first change that a problem of memory asks for."""
    found = CHANGE.search(problem)
    assert found, problem
    name = "tensor-parallel-size" if found[1] == "tp" else found[1]
    if f"--{name}" not in flags:
        return [*flags, f"--{name}", found[2]]
    at = flags.index(f"--{name}")
    return [*flags[: at + 1], found[2], *flags[at + 2 :]]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line["id"])
def test_a_published_line_is_accepted_or_answered_once(line: dict[str, Any], answer: Any) -> None:
    text, expected = line.get("flags", ""), line.get("problems", [])
    problems = answer(line, shlex.split(text))
    memory = [problem for problem in problems if is_of_memory(problem)]
    assert len(memory) <= (1 if line.get("memory") else 0), memory
    others = [problem for problem in problems if problem not in memory]
    for part in [*expected, *([line["end"]] if "end" in line else [])]:
        matching = [one for one in others if part in one]
        assert len(matching) == 1, (part, problems)
        others.remove(matching[0])
    assert others == []
    if "end" in line:
        return
    for old, new in line.get("changes", []):
        assert old in text
        text = text.replace(old, new)
    flags = shlex.split(text)
    for problem in memory:
        flags = changed(flags, problem)
    assert answer(line, flags, tuple(line.get("unset", ()))) == []


def test_every_line_that_is_not_accepted_says_how_it_is_answered() -> None:
    assert len(LINES) == len({line["id"] for line in LINES}) == 39
    for line in LINES:
        assert bool(line.get("problems")) >= bool(line.get("changes") or line.get("unset"))
