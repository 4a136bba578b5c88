"""The arguments of `dsv4 probe`; the probe itself is tested in tests/healthcheck."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from dsv4_serve.healthcheck.state import Finding, Health
from tests.healthcheck.test_probe import replica

Run = Callable[..., subprocess.CompletedProcess[str]]
READY = Health(
    phase="ready", engine=1, generated_after=5.0, ready_after=6.0, gate=Finding("good"), corruption=Finding("good")
)


def test_a_replica_that_serves_is_ok(dsv4: Run) -> None:
    with replica(READY) as port:
        answer = dsv4("probe", "ready", f"--port={port}")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "ok\n", "")


def test_the_checks_that_fail_are_listed_on_stderr(dsv4: Run) -> None:
    with replica(Health(phase="resolving")) as port:
        answer = dsv4("probe", "ready", "--port", port)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith("[-]started failed: resolving: ")


def test_the_port_comes_from_the_environment_unless_one_is_given(dsv4: Run) -> None:
    with replica(READY) as port:
        assert dsv4("probe", "live", DSV4_HEALTH_PORT=port).returncode == 0
        assert dsv4("probe", "live", DSV4_HEALTH_PORT="1").returncode == 1
        assert dsv4("probe", "live", "--port", port, DSV4_HEALTH_PORT="1").returncode == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: startup|live|ready"),
        (["health"], "invalid choice: 'health' (choose from startup, live, ready)"),
        (["redy"], "did you mean ready?"),
        (["live", "ready"], "`dsv4 probe` does not take 'ready'"),
        (["live", "--prot", "1"], "does not take '--prot' (did you mean --port?)"),
        (["live", "--port"], "argument --port: expected one argument"),
        (["live", "--port", "70000"], "argument --port: '70000' is not a port from 1 to 65535"),
        (["live", "--port", "²"], "'²' is not a port from 1 to 65535"),
        (["live", "--timeout", "soon"], "argument --timeout: 'soon' is not a number of seconds"),
        (["live", "--timeout=nan"], "'nan' is not a number of seconds"),
        (["live", "--timeout=-1"], "'-1' is not a number of seconds"),
    ],
)
def test_unknown_arguments_are_reported_in_one_line_and_exit_with_64(dsv4: Run, argv: list[str], message: str) -> None:
    answer = dsv4("probe", *argv)
    assert (answer.returncode, answer.stdout) == (64, "")
    assert message in answer.stderr
    assert answer.stderr.endswith("; see `dsv4 probe --help`.\n")
    assert len(answer.stderr.splitlines()) == 1


def test_an_invalid_port_in_the_environment_is_named(dsv4: Run) -> None:
    """With the status that every other command gives it; HEALTHCHECK and exec probes take any but 0 for a failure."""
    for port, message in (("http", "DSV4_HEALTH_PORT = 'http' is not valid"), ("0", "name it with --port")):
        answer = dsv4("probe", "live", DSV4_HEALTH_PORT=port)
        assert (answer.returncode, answer.stdout) == (78, "")
        assert message in answer.stderr
        assert len(answer.stderr.splitlines()) == 1
        assert dsv4("probe", "live", "--port", "1", DSV4_HEALTH_PORT=port).returncode == 1


def test_it_imports_no_more_than_the_command_line() -> None:
    """HEALTHCHECK starts a process every few seconds: 100 ms is its budget."""
    code = "import sys; from dsv4_serve.entrypoint.cli.main import main; main(['probe', 'live', '--port', '1']);"
    code += "print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"asyncio", "http.client", "httpx", "pydantic", "ssl", "tomllib", "urllib.request", "uvicorn"}
    assert not heavy & set(done.stdout.split())
