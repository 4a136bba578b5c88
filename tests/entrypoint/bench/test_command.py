"""`dsv4 bench` and `dsv4 warm` as real processes over a stand-in for vLLM; one test over real vLLM."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dsv4_serve.entrypoint.bench import warm
from dsv4_serve.entrypoint.client import local_replica
from dsv4_serve.entrypoint.client.local_replica import ReplicaEnded, Started
from dsv4_serve.entrypoint.shared_result import digest
from tests.support import command
from tests.support.patience import slowness
from tests.support.program import argv_of

pytestmark = [pytest.mark.process, pytest.mark.slow]

DUMMY = ("--without-weights", "--model", "w4a16", "--profile", "64k", "--hardware", "cpu", "--skip", "profile-hardware")
SMALL = ("--batch", "1", "2", "--input", "8", "--output", "4", "--requests-per-batch", "2")
Bench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def dsv4(environ: dict[str, str], tmp_path: Path) -> Bench:
    """`dsv4 ARGS…` in a folder of its own; keywords are environment variables."""

    def run(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        return command.run(*argv, env={**environ, **env}, cwd=tmp_path, timeout=120 * slowness())

    return run


@pytest.fixture
def running(environ: dict[str, str], demo_argv: list[str], tmp_path: Path) -> Iterator[Started]:
    """A replica of the demo profile over the stand-in."""
    with local_replica.replica(demo_argv, environ, tmp_path / "replica", 60) as replica:
        yield replica


def at(replica: Started) -> tuple[str, ...]:
    return "--url", replica.endpoint.url, "--health", replica.endpoint.health or "none"


def result(folder: Path) -> dict:
    [path] = (folder / "qualification" / "bench").glob("*.json")
    return json.loads(path.read_text())


def test_a_running_replica_is_measured_with_its_plan_and_machine(dsv4: Bench, running: Started, tmp_path: Path) -> None:
    done = dsv4("bench", *at(running), *SMALL, "--plot", "plot.svg", "--share", "mine.json", "--goodput", "ttft:25")
    assert done.returncode == 0, done.stderr
    found = result(tmp_path)
    assert [(row["batch"], row["output_tokens_per_second"], row["acceptance"]) for row in found["rows"]] == [
        (1, 100.0, 0.89), (2, 200.0, 0.89),
    ]  # fmt: skip
    assert found["subject"] == "demo-cpu-tp1-demo"
    assert found["weights"] == "as served"
    assert found["replica"]["machine"]["cores"] >= 1
    assert found["replica"]["choices"]["profile"] == "demo"
    assert found["digests"]["plan"] == digest(found["replica"])
    assert len(found["digests"]["series"]) == 16
    assert found["start"]["phases"]["proving"] > 0
    assert "200.00" in done.stdout
    assert (found["goodput"], [row["good_share"] for row in found["rows"]]) == ({"ttft": 25.0}, [0.5, 0.5])
    assert "within TTFT 25 ms: none with 8 tokens in." in done.stdout
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")
    shared = json.loads((tmp_path / "mine.json").read_text())
    assert (shared["profile"], shared["hardware"], shared["kind"], len(shared["rows"])) == ("demo", "cpu", "bench", 2)
    assert str(tmp_path) not in json.dumps(shared)


def test_a_failure_keeps_the_rows_before_it(dsv4: Bench, running: Started, tmp_path: Path) -> None:
    done = dsv4("bench", *at(running), *SMALL, GENERATOR="breaks at 2")
    assert done.returncode == 1
    assert "ValueError: too many" in done.stderr
    found = result(tmp_path)
    assert [row["batch"] for row in found["rows"]] == [1]
    assert "too many" in found["failed"]


def test_a_hidden_health_server_is_skipped_by_name(dsv4: Bench, running: Started, tmp_path: Path) -> None:
    without = dsv4("bench", "--url", running.endpoint.url, "--health", "none", *SMALL)
    assert without.returncode == 78
    assert "name the tokenizer with --tokenizer" in without.stderr
    named = dsv4("bench", "--url", running.endpoint.url, "--health", "none", *SMALL, "--tokenizer", "/models/x")
    assert named.returncode == 0
    assert "plan, versions and machine are skipped" in named.stderr
    assert result(tmp_path)["replica"] == {}
    where = ("--url", running.endpoint.url, "--health", "none", "--tokenizer", "/models/x", "--share", "mine.json")
    assert "the replica's plan is unknown" in dsv4("bench", *where, *SMALL).stderr


def test_a_key_reaches_the_generator_and_no_result(
    dsv4: Bench, environ: dict[str, str], demo_argv: list[str], tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("sesame-9")
    with local_replica.replica([*demo_argv, "--api-key", "sesame-9"], environ, tmp_path / "r", 60) as replica:
        refused = dsv4("bench", *at(replica), *SMALL)
        done = dsv4("bench", *at(replica), *SMALL, "--api-key-file", "key")
    assert "--api-key-file" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert "sesame-9" not in json.dumps(result(tmp_path))


def test_a_missing_replica_is_reported_in_one_sentence(dsv4: Bench) -> None:
    done = dsv4("bench", "--url", "http://127.0.0.1:9")
    assert done.returncode == 69
    assert done.stderr.count("\n") == 1
    assert "is a replica running there" in done.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--profile", "64k"), "does not take --profile; start the replica with it, or add --without-weights"),
        (("--max-num-seqs", "4"), "does not take --max-num-seqs"),
        (("--batch", "0"), "--batch 0: must be 1 or more"),
        (("--context", "100"), "--context 100: must be more than the 256 tokens of --output"),
        (("--acceptance", "0.5"), "does not take --acceptance"),
        (("--start-timeout", "60"), "does not take --start-timeout"),
        ((*DUMMY, "--start-timeout", "nan"), "'nan' is not a number of seconds above 0"),
        ((*DUMMY, "--acceptance", "nan"), "--acceptance: nan is not a share from 0 to 1"),
        ((*DUMMY, "--url", "http://127.0.0.1:9"), "its own replica and does not take --url"),
        ((*DUMMY, "--health", "foo"), "its own replica and does not take --health"),
    ],
)
def test_what_cannot_be_measured_is_refused(dsv4: Bench, argv: tuple[str, ...], message: str) -> None:
    done = dsv4("bench", *argv)
    assert done.returncode == 64
    assert message in done.stderr


def test_warm_takes_a_synthetic_rate_only_without_weights(dsv4: Bench) -> None:
    done = dsv4("warm", "--acceptance", "0.5")
    assert done.returncode == 64
    assert "add --without-weights" in done.stderr


@pytest.mark.parametrize("option", ["--out", "--plot"])
def test_an_unwritable_folder_is_reported_before_anything_is_measured(
    dsv4: Bench, running: Started, tmp_path: Path, option: str
) -> None:
    done = dsv4("bench", *at(running), *SMALL, option, "/dev/null/x")
    assert done.returncode == 69
    assert re.match("dsv4: cannot write (to )?/dev/null/x", done.stderr)
    assert not (tmp_path / "qualification").exists()


def test_a_replica_without_weights_is_started_measured_and_stopped(dsv4: Bench, tmp_path: Path) -> None:
    done = dsv4("bench", *DUMMY, *SMALL, "--max-num-seqs", "8", "--acceptance", "0.5")
    assert done.returncode == 0, done.stderr
    found = result(tmp_path)
    assert found["weights"] == "dummy weights, synthetic acceptance 0.5, experts uniform_random"
    assert found["subject"] == "w4a16-cpu-tp2-64k-dummy"
    flags = " ".join(found["replica"]["argv"])
    assert "--load-format dummy" in flags
    assert "--max-num-seqs 8" in flags
    assert '"synthetic_acceptance_rates":[0.5]' in flags
    assert '"method":"mtp"' in flags
    assert found["replica"]["settings"]["max-num-seqs"] == {"value": 8}
    assert len(found["rows"]) == 2
    assert "only warn" in done.stderr
    assert not [one for one in psutil.process_iter() if str(tmp_path) in " ".join(argv_of(one))]


def test_a_signal_stops_what_was_started(environ: dict[str, str], tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "dsv4_serve.entrypoint", "bench", *DUMMY, *SMALL]
    process = subprocess.Popen(argv, env={**environ, "STAND_IN": "stalls"}, cwd=tmp_path, stderr=subprocess.PIPE)
    until, below = time.monotonic() + 60 * slowness(), []
    while len(below) < 2 and time.monotonic() < until:
        time.sleep(0.1)
        below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) >= 2
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60 * slowness())
    assert process.returncode == 128 + signal.SIGTERM
    assert b"stopped by SIGTERM" in stderr
    assert psutil.wait_procs(below, timeout=5 * slowness())[1] == []


def test_a_replica_that_does_not_start_says_its_root_cause(dsv4: Bench, tmp_path: Path) -> None:
    done = dsv4("bench", *DUMMY, *SMALL, STAND_IN="key-error")
    assert done.returncode == 1
    assert "root cause: KeyError: 'layers.1.ffn.experts.w13_weight'" in done.stderr
    assert not (tmp_path / "qualification").exists()


def test_a_replica_that_is_not_ready_in_time_is_given_up(
    environ: dict[str, str], demo_argv: list[str], tmp_path: Path
) -> None:
    with (
        pytest.raises(ReplicaEnded, match="not ready after 3 s: "),
        local_replica.replica(demo_argv, {**environ, "STAND_IN": "stalls"}, tmp_path / "r", 3),
    ):
        pass


def test_a_plan_is_warmed_once_and_again(dsv4: Bench) -> None:
    done = dsv4("warm", *DUMMY, "--again", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["starts"]) == 2
    assert all(one["phases"]["proving"] > 0 for one in found["starts"])
    assert found["filled"] == {}
    assert "second, s" in warm.text(found)
    assert "nothing remained to compile" in warm.text(found)


def test_what_a_start_adds_to_each_cache_is_counted(tmp_path: Path) -> None:
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "old").write_bytes(bytes(1 << 20))
    before = warm.contents(tmp_path)
    (tmp_path / "triton" / "new").write_bytes(bytes(3 << 20))
    assert warm.added(before, warm.contents(tmp_path)) == {"triton": {"files": 1, "mib": 3.0}}


@pytest.mark.parametrize("command", ["bench", "warm"])
def test_without_vllm_and_numpy_the_message_names_what_is_missing(command: str, tmp_path: Path) -> None:
    argv = [command, "--without-weights", "--model", "w4a16", "--profile", "64k", "--hardware", "h200"]
    code = f"import sys; sys.modules['numpy'] = None; from dsv4_serve.entrypoint.cli.main import main; sys.exit(main({argv}))"
    env = {**os.environ, "DSV4_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert done.stderr == "dsv4: --without-weights needs numpy, which comes with vLLM; install vLLM here.\n"
