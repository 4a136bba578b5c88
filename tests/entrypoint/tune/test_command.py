"""`dsv4 tune` as a real process over a stand-in for vLLM whose speed depends on the number of draft tokens."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from dsv4_serve.demo.llama import write_checkpoint
from dsv4_serve.entrypoint import shared_result
from tests.support import command
from tests.support.patience import slowness
from tests.support.program import ROOT, argv_of

pytestmark = [pytest.mark.process, pytest.mark.slow]

STAND_IN = ROOT / "tests/support/stand_in.py"
GENERATOR = """
import json, os, sys
given = dict(zip(sys.argv, sys.argv[1:]))
batch, count = int(given["--max-concurrency"]), int(given["--num-prompts"])
faster = 1.3 if "drafts-5" in os.environ.get("DSV4_PROFILES", "") and os.environ.get("GENERATOR") != "noise" else 1.0
with open(os.environ["COUNTER"], "a+") as file:
    file.write(".")
    number = file.tell()
saved = {
    "completed": count, "output_throughput": 100.0 * batch * faster * (1 + number * 7 % 5 / 1000), "duration": 1.5,
    "p50_tpot_ms": 10.0 / faster, "p99_tpot_ms": 11.0, "p50_ttft_ms": 20.0, "p99_ttft_ms": 30.0,
    "spec_decode_draft_tokens": 300, "spec_decode_accepted_tokens": 270,
    "spec_decode_per_position_acceptance_rates": [0.95, 0.9, 0.85],
}
with open(os.path.join(given["--result-dir"], given["--result-filename"]), "w") as file:
    json.dump(saved, file)
"""
Tune = Callable[..., list[str]]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment whose vLLM is a stand-in that accepts no draft of seven tokens, and a folder for profiles."""
    (tmp_path / "generator.py").write_text(GENERATOR)
    (tmp_path / "profiles").mkdir()
    program = tmp_path / "vllm"
    program.write_text(
        "#!/bin/sh\n"
        """case "$*" in *'"num_speculative_tokens":7'*) export STAND_IN=scrambled;; esac\n"""
        f'[ "$1" = serve ] && exec {sys.executable} {STAND_IN} "$@"\n'
        f'shift 2\nexec {sys.executable} {tmp_path}/generator.py "$@"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LC_ALL") if name in os.environ}
    quick = {"DSV4_GATE_TOKENS": "4", "DSV4_GATE_CONCURRENCY": "2", "DSV4_SUPERVISE_STOP_GRACE": "3"}
    own = {"HOME": tmp_path, "DSV4_CACHE": tmp_path / "cache", "DSV4_VLLM": program, "COUNTER": tmp_path / "counter"}
    own |= {"DSV4_PROFILES": tmp_path / "profiles", "TMPDIR": tmp_path}
    return {**kept, **quick, **{name: str(value) for name, value in own.items()}}


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command for the demo profile; 3 draft tokens are its plan."""
    model = write_checkpoint(tmp_path / "model")
    argv = [*command.ARGV, "tune", "--profile", "demo", "--hardware", "cpu"]
    return [*argv, "--model", f"demo={model}", "--output", "8", "--input", "8", "--requests-per-batch", "2"]


def run(words: list[str], environ: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    own = words[len(command.ARGV) :]
    return command.run(*own, env=environ, cwd=folder, timeout=300 * slowness())


def starts(folder: Path) -> list[dict]:
    files = list((folder / "qualification/tune").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_a_run_that_is_interrupted_continues_and_writes_what_won(
    environ: dict[str, str], words: list[str], tmp_path: Path
) -> None:
    process = subprocess.Popen(words, env=environ, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120 * slowness()
    while len(starts(tmp_path)) < 2 and time.monotonic() < until and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60 * slowness())
    assert process.returncode == 128 + signal.SIGTERM
    assert b"stopped by SIGTERM" in said
    assert not [one for one in psutil.process_iter() if str(tmp_path) in " ".join(argv_of(one))]
    assert list((tmp_path / "profiles").iterdir()) == []
    before = starts(tmp_path)
    assert [start["setup"] for start in before][:2] == [[], ["drafts-7"]]

    done = run([*words, "--format", "json", "--share", "mine.json"], environ, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{len(before)} starts are kept" in done.stderr
    assert starts(tmp_path)[: len(before)] == before
    result = json.loads(done.stdout)
    verdicts = {one["name"]: one for one in result["candidates"]}
    assert verdicts["drafts-5"]["verdict"] == "wins"
    assert verdicts["drafts-4"]["verdict"] in ("within the noise", "no faster")
    assert verdicts["drafts-7"]["verdict"] == "failed"
    assert "draft gate" in verdicts["drafts-7"]["why"]
    assert result["gain"] == pytest.approx(0.3, abs=0.01)
    assert result["finished"]
    counts = [start["setup"] for start in starts(tmp_path)]
    assert counts.count([]) == 2, "a gain far beyond the noise needs no more"
    assert (counts.count(["drafts-5"]), counts.count(["drafts-7"])) == (3, 1)

    written = Path(result["profile"])
    assert written == tmp_path / "profiles/demo-tuned.toml"
    profile = tomllib.loads(written.read_text())
    assert (profile["extends"], profile["flags"]) == ("demo", {"speculative-config": {"num_speculative_tokens": 5}})
    assert "batch 1, 8 tokens in, 8 out: 100." in written.read_text()
    assert (tmp_path / profile["measured"][0]["source"]).is_file()
    explained = [
        *words[:3],
        "explain",
        "--profile",
        "demo-tuned",
        "--hardware",
        "cpu",
        *words[8:10],
        "--format",
        "json",
    ]
    settings = json.loads(run(explained, environ, tmp_path).stdout)["settings"]
    assert settings["speculative-config.num_speculative_tokens"]["value"] == 5
    assert settings["max-num-seqs"]["value"] == 4

    shared = json.loads((tmp_path / "mine.json").read_text())
    assert (shared["kind"], shared["changes"]) == ("tune", {"speculative-config.num_speculative_tokens": 5})
    assert shared_result.unpublishable(shared) == []
    again = run(words, environ, tmp_path)
    assert again.returncode == 78
    assert "there is a profile demo-tuned already" in again.stderr


def test_noise_alone_keeps_what_you_have(environ: dict[str, str], words: list[str], tmp_path: Path) -> None:
    done = run([*words, "--for", "latency"], {**environ, "GENERATOR": "noise"}, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Keep what you have: nothing was faster beyond the noise." in done.stdout
    assert "failed: the replica ended with status 85" in done.stdout
    assert list((tmp_path / "profiles").iterdir()) == []


def test_without_weights_every_setup_has_dummy_ones_and_an_acceptance_for_each_of_its_drafts(
    environ: dict[str, str], tmp_path: Path
) -> None:
    argv = [*command.ARGV, "tune", "--without-weights", "--acceptance", "0.5"]
    argv += ["--model", "w4a16", "--profile", "64k", "--hardware", "cpu", "--skip", "profile-hardware"]
    argv += ["--only", "drafts", "--batch", "1", "--input", "8", "--output", "8"]
    done = run(argv, {**environ, "GENERATOR": "noise"}, tmp_path)
    assert done.returncode == 0, done.stderr
    [result] = (tmp_path / "qualification/tune").glob("*.json")
    assert json.loads(result.read_text())["weights"].startswith("dummy weights, synthetic acceptance 0.5")
    first, second = starts(tmp_path)[:2]
    rates = "speculative-config.synthetic_acceptance_rates"
    assert first["replica"]["settings"][rates]["value"] == [0.5]
    assert second["setup"] == ["drafts-2"]
    assert second["replica"]["settings"][rates]["value"] == [0.5, 0.25]
    assert first["replica"]["settings"]["load-format"]["value"] == "dummy"


def test_a_plan_that_does_not_start_ends_the_run_with_its_cause(
    environ: dict[str, str], words: list[str], tmp_path: Path
) -> None:
    done = run(words, {**environ, "STAND_IN": "key-error"}, tmp_path)
    assert done.returncode == 1
    assert "root cause: KeyError: 'layers.1.ffn.experts.w13_weight'" in done.stderr
    assert starts(tmp_path) == []


@pytest.mark.parametrize(
    ("more", "env", "status", "said"),
    [
        ((), {"DSV4_PROFILES": ""}, 78, "DSV4_PROFILES names no folder for the profile that `dsv4 tune` writes"),
        (("--profile", "auto", "--model", "w4a16", "--hardware", "h200"), {}, 64, "needs a fixed profile"),
        (("--name", "64k"), {}, 78, "there is a profile 64k already"),
        (("--name", "../x"), {}, 64, "use lower case letters"),
        (("--for", "latency", "--batch", "2"), {}, 64, "--for names what --batch decides"),
        (("--only", "luck"), {}, 64, "--only luck: use drafts, experts,"),
        (("--hours", "0"), {}, 64, "'0' is not a number of hours above 0"),
        (("--output", "1"), {}, 64, "--output 1: must be 2 or more"),
        (("--acceptance", "0.5"), {}, 64, "add --without-weights"),
        (("--out", "/dev/null/x"), {}, 69, "cannot write /dev/null/x"),
        (("--share", "/dev/null/x"), {}, 69, "cannot write /dev/null/x"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_anything_starts(
    refused: Callable[..., str], more: tuple[str, ...], env: dict[str, str], status: int, said: str
) -> None:
    assert said in refused(more, env, status)


@pytest.fixture
def refused(environ: dict[str, str], words: list[str], tmp_path: Path) -> Callable[..., str]:
    """What is said to more words in another environment, with this status and before a start."""

    def told(more: tuple[str, ...], env: dict[str, str], status: int) -> str:
        done = run([*words, *more], {**environ, **env}, tmp_path)
        assert done.returncode == status, done.stderr
        assert starts(tmp_path) == []
        return done.stderr

    return told


def test_a_dry_run_lists_what_would_be_tried_and_starts_nothing(
    environ: dict[str, str], words: list[str], tmp_path: Path
) -> None:
    done = run([*words, "--dry-run", "--format", "json"], {**environ, "DSV4_PROFILES": ""}, tmp_path)
    assert [one["name"] for one in json.loads(done.stdout)["candidates"]] == ["drafts-7", "drafts-5", "drafts-4"]
    assert starts(tmp_path) == []
