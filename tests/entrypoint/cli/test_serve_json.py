"""`DSV4_LOG_FORMAT=json`: every line of `dsv4 serve` is an object, and the cause is found as before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.demo.llama import write_checkpoint
from dsv4_serve.entrypoint.client.local_replica import free_port
from tests.support import command

FAILS = """#!{python}
import sys
core = "(EngineCore pid=7) ERROR 11-29 09:00:00 [core.py:700] "
trace = ["EngineCore failed to start.", "Traceback (most recent call last):", '  File "x.py", line 1, in y', "KeyError: 'w13'"]
sys.stdout.write("(EngineCore pid=7) INFO 11-29 09:00:00 [core.py:1] hello\\n")
sys.stderr.write("\\r\\n".join(core + line for line in trace) + "\\n")
sys.stderr.write("Traceback (most recent call last):\\n  File z\\nRuntimeError: Engine core initialization failed.\\n")
sys.exit(1)
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    here = tmp_path_factory.mktemp("serve-json")
    program = here / "vllm"
    program.write_text(FAILS.format(python=sys.executable))
    program.chmod(0o755)
    return serve(
        here,
        PROFILE="demo",
        MODEL=f"demo={write_checkpoint(here / 'model')}",
        DSV4_VLLM=str(program),
        PORT=str(free_port()),
    )


def serve(here: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    ours = {"DSV4_LOG_FORMAT": "json", "DSV4_HEALTH_PORT": "0", "DSV4_RUN_DIR": str(here / "run")}
    environ = {**os.environ, **ours, **env}
    return command.run("serve", *argv, env=environ)


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_is_an_object(ended) -> None:
    found = objects(ended.stdout) + objects(ended.stderr)
    assert all(set(one) >= {"time", "level", "source", "message", "phase"} for one in found)
    assert {one["source"] for one in found} == {"dsv4", "vllm"}


def test_tracebacks_are_whole(ended) -> None:
    traces = [one for one in objects(ended.stderr) if "Traceback" in one["message"]]
    assert [one["message"].splitlines()[-1] for one in traces] == [
        "KeyError: 'w13'",
        "RuntimeError: Engine core initialization failed.",
    ]
    assert traces[0]["process"] == "EngineCore"
    assert {one["phase"] for one in traces} == {"starting"}


def test_the_cause_is_found_and_has_fields(ended) -> None:
    last = objects(ended.stderr)[-1]
    assert ended.returncode == last["exit_status"] == 87
    assert (last["cause"], last["level"], last["phase"]) == ("start-failed", "ERROR", "ended")
    assert "KeyError: 'w13'" in last["root_cause"]


def test_the_plan_is_one_object(ended) -> None:
    [plan] = [one for one in objects(ended.stderr) if one["message"] == "the plan"]
    assert plan["choices"]["profile"] == "demo"
    assert " serve " in plan["command"]


def test_a_mistake_is_an_object_too(tmp_path: Path) -> None:
    done = serve(tmp_path, "--skip")
    [error] = objects(done.stderr)
    assert (done.returncode, error["exit_status"], error["level"]) == (64, 64, "ERROR")


def test_another_format_is_refused(tmp_path: Path) -> None:
    done = serve(tmp_path, DSV4_LOG_FORMAT="xml")
    assert done.returncode == 78
    assert "environment DSV4_LOG_FORMAT = 'xml' is not valid" in done.stderr
