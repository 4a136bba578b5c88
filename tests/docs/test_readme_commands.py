"""
Every command of the README, in the form in which it is printed.

What needs a GPU or a container engine is taken apart: image, mounts and variables of a `docker run` and of a service
become those of a real `dsv4` on this machine, with the host's folders in place of the container's. A command that no
test below knows fails `test_every_command_is_run_by_a_test`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.demo.llama import write_checkpoint
from dsv4_serve.entrypoint import listen
from dsv4_serve.entrypoint.resolve.environment import Variables
from tests.docs import readme
from tests.support import checkpoints, hub
from tests.support.command import run as run_dsv4
from tests.support.patience import slowness
from tests.support.program import find
from tests.support.replica import Replica
from tests.support.running_demo import COMMAND, NAME, Demo

LOCAL = "http://127.0.0.1:"
KNOWN = {
    r"make demo": "test_the_demo_answers",
    r"docker build .*": "test_an_image_is_built_from_a_stage_of_the_dockerfile",
    r"mkdir .*": "test_the_key_can_be_read_by_any_uid_and_its_folder_by_one",
    r"docker run .* qualify .*": "test_the_box_is_qualified_for_what_is_served_then",
    r"docker run (?!.* qualify ).*": "test_the_container_serves_the_folder_that_the_one_before_it_fills",
    r"docker exec .*": "test_the_smoke_test_runs_in_the_container_that_serves",
    r"until curl .*": "test_what_is_waited_for_is_published_and_answers",
    r"(?:[A-Z_]+=\S+ )*docker compose (?:--profile \S+ )?up -d": "test_compose_serves_what_is_said",
    r"KEY=.*|curl .*": "test_the_questions_are_answered",
}
"""The commands of the README, as regular expressions, and the test that runs each."""


def only(pattern: str) -> list[str]:
    found = [command for command in readme.commands() if re.fullmatch(pattern, command, re.DOTALL)]
    assert found, pattern
    return found


def test_every_command_is_run_by_a_test() -> None:
    for command in readme.commands():
        matches = [test for pattern, test in KNOWN.items() if re.fullmatch(pattern, command, re.DOTALL)]
        assert len(matches) == 1, f"no test runs `{command}`"
        assert callable(globals()[matches[0]])
    assert set(readme.languages()) == {"bash", "python"}


@pytest.mark.parametrize("pattern", KNOWN)
def test_every_kind_of_command_is_printed(pattern: str) -> None:
    assert only(pattern)


def test_the_readme_is_short() -> None:
    assert len(readme.TEXT.splitlines()) <= 110
    assert len(readme.TEXT.split()) <= 900


def test_every_block_is_bash() -> None:
    for block in readme.blocks("bash"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_every_command_in_a_sentence_answers() -> None:
    """`dsv4 …` and `make …` between backquotes."""
    spans = re.findall(r"`((?:dsv4|make) [^`]+)`", readme.TEXT)
    assert spans
    for span in spans:
        program, *words = shlex.split(span)
        if program == "dsv4":
            run = run_dsv4(*words, "--help", env=os.environ)
        else:
            argv = ["make", "--dry-run", *words]
            run = subprocess.run(argv, cwd=readme.ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == 0, (span, run.stderr)


# The demo


def test_the_demo_answers(running_demo: Demo) -> None:
    """`make demo` runs what the fixture started, there with a free port and a folder of its own."""
    recipe = ["make", "--dry-run", "--silent", "--old-file", ".venv/installed", *shlex.split(only("make demo")[0])[1:]]
    shown = subprocess.run(recipe, cwd=readme.ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    words = shlex.split(shown[-1])
    assert words[1:] == [*COMMAND[1:], "--profile", "demo", "--port", "8000"]
    said = re.search(r"\*Success\*: `([^`]+)`", readme.TEXT)
    assert said
    assert said[1] in running_demo.printed.splitlines()


# Containers


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder after the README's own commands for folders and key, and a Hub that has the weights, but small."""
    block = next(block for block in readme.blocks("bash") if "openssl" in block)
    lines = [line for line in block.splitlines() if line.startswith("mkdir")]
    subprocess.run(["bash", "-ec", "\n".join(lines)], cwd=tmp_path, check=True)
    repository = "canada-quant/DeepSeek-V4-Flash-W4A16-FP8-MTP"
    monkeypatch.setattr(hub, "REPOSITORY", repository)
    checkpoint = checkpoints.LAYOUTS["w4a16"](tmp_path / "published")
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    server = hub.Server(hub.Hub(files))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    for name in ("HF_HUB_OFFLINE", "VLLM_API_KEY", *Variables.model_fields):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    server.shutdown()
    server.server_close()


def dsv4(*words: str, **env: str) -> str:
    run = run_dsv4(*words, env={**os.environ, **env})
    assert run.returncode == 0, run.stderr
    return run.stdout


def on_host(text: str, mounts: dict[str, str]) -> str:
    """Replace paths of a container by those of this host."""
    for inside, outside in mounts.items():
        text = re.sub(rf"(?<![\w/]){re.escape(inside)}(?=/|$|\s)", lambda _: outside, text)  # noqa: B023
    return text


def plan(env: dict[str, str], mounts: dict[str, str]) -> dict[str, Any]:
    """Return the plan that `dsv4 serve` has with the variables of a container; the dry run has to answer too."""
    known = {**{name: on_host(value, mounts) for name, value in env.items()}}
    if known.get("PROFILE") != "demo":
        known["HARDWARE"] = "h200"
    dsv4("serve", "--dry-run", **known)
    return json.loads(dsv4("explain", "--format", "json", **known))


def test_an_image_is_built_from_a_stage_of_the_dockerfile() -> None:
    assert {readme.stage(shlex.split(command)[3]) for command in only("docker build .*")} == {"gpu", "cpu"}
    for command in only("docker build .*"):
        words = shlex.split(command)
        assert words[2] == "-t"
        assert words[4:] in (["."], ["--target", "cpu", "."])


def test_the_key_can_be_read_by_any_uid_and_its_folder_by_one(place: Path) -> None:
    key = place / "secrets/api-key"
    assert len(key.read_text().strip()) == 64
    assert stat.S_IMODE(key.stat().st_mode) == 0o644
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    ignored = (readme.ROOT / ".gitignore").read_text().split()
    assert {"/secrets/", "/models/"} <= set(ignored)


def test_the_container_serves_the_folder_that_the_one_before_it_fills(place: Path) -> None:
    fetch, serve = map(readme.docker_run, only(r"docker run (?!.* qualify ).*"))
    here = {"$PWD": str(place)}

    def mounts(run: readme.DockerRun) -> dict[str, str]:
        return {inside: on_host(source, here) for inside, (source, _) in run.volumes().items()}

    assert readme.stage(fetch.image) == readme.stage(serve.image) == "gpu"
    assert fetch.options["--user"] == ["$(id -u):0"]  # may write to the folder, and to its home as group 0
    dsv4(*(on_host(word, mounts(fetch)) for word in fetch.words))
    assert (place / "models/w4a16/config.json").is_file()

    assert serve.words == []  # the image's CMD: serve
    cache = serve.volumes()["/var/cache/dsv4"]
    assert readme.stage_environment("gpu")["HOME"] == "/var/cache/dsv4"
    assert "/" not in cache[0]  # a named volume
    assert all(read_only for inside, (_, read_only) in serve.volumes().items() if inside != "/var/cache/dsv4")
    made = plan(serve.environment(), mounts(serve))
    folder = place / "models/w4a16"
    assert made["argv"][:3] == ["vllm", "serve", str(folder)]
    assert made["settings"]["profile"]["value"] == serve.environment()["PROFILE"]
    assert made["settings"]["VLLM_API_KEY"]["origin"] == f"environment API_KEY_FILE = {place}/secrets/api-key"
    assert int(serve.options["--stop-timeout"][0]) >= 145
    assert serve.ports() == {"127.0.0.1:8000", f"127.0.0.1:{listen.HEALTH_PORT}"}
    assert served_names(made) >= {"deepseek-v4-flash"}


def test_the_box_is_qualified_for_what_is_served_then() -> None:
    run = readme.docker_run(only("docker run .* qualify .*")[0])
    serve = readme.docker_run(only(r"docker run (?!.* qualify ).*")[-1])
    assert readme.stage(run.image) == "gpu"
    assert run.options["--gpus"] == serve.options["--gpus"]
    assert run.volumes() == {"/var/cache/dsv4": (serve.volumes()["/var/cache/dsv4"][0], False)}  # one cache of kernels
    env = run.environment()
    assert env == {"PROFILE": serve.environment()["PROFILE"], "MODEL": serve.environment()["MODEL"].split("=")[0]}
    assert run.words[0] == "qualify"
    assert "no weights are needed" in " ".join(dsv4(*run.words, "--help").split())
    assert run.words[run.words.index("--out") + 1].startswith("/var/cache/dsv4/")


def test_the_smoke_test_runs_in_the_container_that_serves() -> None:
    _, _, container, program, *words = shlex.split(only("docker exec .*")[0])
    assert [container] == readme.docker_run(only(r"docker run (?!.* qualify ).*")[-1]).options["--name"]
    assert program == "dsv4"
    assert "Send a running replica what users send" in " ".join(dsv4(*words, "--help").split())


def served_names(made: dict[str, Any]) -> set[str]:
    names = made["settings"]["served-model-name"]["value"]
    return set(names if isinstance(names, list) else [names])


def test_without_a_model_the_log_says_what_is_downloaded(place: Path) -> None:
    """The README says so of a container without MODEL."""
    run = run_dsv4("doctor", "--profile", "524k", "--hardware", "h200", "--no-collective", env=os.environ)
    assert "`dsv4 serve` fetches it (about" in run.stdout


@pytest.mark.parametrize("command", only(r"(?:[A-Z_]+=\S+ )*docker compose (?:--profile \S+ )?up -d"))
def test_compose_serves_what_is_said(command: str, place: Path) -> None:
    services, given = readme.compose_services(command)
    checkpoints.LAYOUTS["w4a16"](place / "models/w4a16")  # as an earlier command has fetched it
    replicas = {name: service for name, service in services.items() if name != "balancer"}
    assert len(replicas) == 2
    for service in replicas.values():
        image = readme.interpolated(service["image"], {})
        built = readme.stage(image)
        mounts = {"/run/secrets/api-key": str(place / "secrets/api-key")}
        for volume in service["volumes"]:
            source, inside = readme.interpolated(volume, given).split(":")[:2]
            if source.startswith("."):
                mounts[inside] = str((place / source).resolve())
        if built == "cpu":
            mounts["/usr/share/dsv4/demo"] = str(write_checkpoint(place / "demo"))
        env = {**readme.stage_environment(built), **readme.service_environment(service, given)}
        ours = {name: value for name, value in env.items() if name in Variables.model_fields and name != "DSV4_RUN_DIR"}
        made = plan(ours, mounts)
        folder = mounts["/usr/share/dsv4/demo"] if built == "cpu" else f"{place}/models/w4a16"
        assert made["argv"][2] == folder
        assert "VLLM_API_KEY" in made["settings"]
        assert served_names(made) & {"demo", "deepseek-v4-flash"}
    if program := find("docker-compose", "COMPOSE"):
        words = shlex.split(command)
        profiles = words[words.index("compose") + 1 : words.index("up")]
        env = {**os.environ, **given, "API_KEY_FILE": str(place / "secrets/api-key")}
        argv = [program, "--project-directory", str(readme.ROOT), *profiles, "config", "--services"]
        assert set(subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout.split()) == set(
            services
        )


# Waiting and asking


def test_what_is_waited_for_is_published_and_answers() -> None:
    """`until` loops ask ports that the command before them publishes, and paths that are there."""
    published = {LOCAL + port.rpartition(":")[2] for port in readme.docker_run(only("docker run -d.*")[0]).ports()}
    status = "127.0.0.1:${STATUS_PORT:-8404}:8404"
    assert status in readme.COMPOSE["services"]["balancer"]["ports"]
    balancer = (readme.ROOT / "deploy/haproxy/haproxy.cfg").read_text()
    for command in only("until curl .*"):
        for url in re.findall(r"http://\S+?(?=[;\s])", command):
            base, path = re.fullmatch(r"(http://[^/]+)(/\w+)", url).groups()  # type: ignore[union-attr]
            if base == LOCAL + "8404":
                assert f"monitor-uri {path}" in balancer
            else:
                assert base in published
                assert path in ("/readyz", "/startupz")


@pytest.mark.slow
def test_the_questions_are_answered(keyed_demo: Replica) -> None:
    """Real vLLM with the tiny model under DeepSeek's name and the README's key; only the ports are others."""

    def here(text: str) -> str:
        ports = {LOCAL + "8000": f"{LOCAL}{keyed_demo.port}", LOCAL + "8001": f"{LOCAL}{keyed_demo.health_port}"}
        return re.sub("|".join(map(re.escape, ports)), lambda found: ports[found[0]], text)

    def run(argv: list[str]) -> str:
        folder = keyed_demo.log.parent
        ran = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=300 * slowness())
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    loop = next(command for command in only("until curl .*") if LOCAL + "8001" in command)
    assert run(["bash", "-ec", here(loop)]).splitlines()[-1] == "readyz check passed"
    questions = next(block for block in readme.blocks("bash") if "KEY=" in block)
    decoder, text, answers = json.JSONDecoder(), run(["bash", "-ec", here(questions)]).strip(), []
    while text:
        value, end = decoder.raw_decode(text)
        answers.append(value)
        text = text[end:].strip()
    models, chat = answers
    assert [one["id"] for one in models["data"]] == [NAME]
    assert chat["choices"][0]["message"]["content"]
    for block in readme.blocks("python"):
        assert run([sys.executable, "-c", here(block)]).strip()
