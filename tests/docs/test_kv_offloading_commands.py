"""
Every command of docs/how-to/kv-offloading.md, which continues the README: taken apart, as there is neither GPU nor engine.

What `docker run` and Compose give a container has to be what its plan asks for. A command that no test below knows fails
`test_every_command_has_a_test`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.containers.deployment import USER, memory
from dsv4_serve.entrypoint.kv_offloading import EXTRA, TIERING
from dsv4_serve.entrypoint.replica import memory_gib, shm_gib
from dsv4_serve.entrypoint.resolve.environment import Variables
from tests.docs import readme
from tests.support import checkpoints
from tests.support.command import run as run_dsv4

PAGE = (readme.ROOT / "docs/how-to/kv-offloading.md").read_text(encoding="utf-8")
COMMANDS = readme.commands(PAGE)
GIB = 1 << 30
SIZE = 64
"""What the page's commands give to copies, in GiB."""
KNOWN = {
    r"docker run --rm dsv4-serve fit .*": "test_fit_says_what_the_container_needs",
    r"docker stop .*": "test_the_container_of_the_readme_is_replaced",
    r"docker run -d .*": "test_a_container_has_the_shared_memory_that_its_plan_takes",
    r"export .*|docker compose up .*": "test_compose_gives_a_replica_what_its_plan_takes",
    r"sudo install .*": "test_the_folder_of_files_is_mounted_and_the_containers_user_writes_it",
    r"curl .*": "test_the_metrics_are_asked_for_where_they_are",
}
"""The commands, as regular expressions, and the test that knows each."""


def only(pattern: str) -> list[str]:
    found = [command for command in COMMANDS if re.fullmatch(pattern, command, re.DOTALL)]
    assert found, pattern
    return found


SERVED = readme.docker_run(next(one for one in readme.commands() if one.startswith("docker run -d")))
"""How the README serves."""
RUNS = [readme.docker_run(command) for command in only("docker run -d .*")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the README was followed, with the page's profile."""
    for name in ("VLLM_API_KEY", *Variables.model_fields):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/api-key").write_text("0" * 64)
    checkpoints.LAYOUTS["w4a16"](tmp_path / "models/w4a16")
    (tmp_path / "profiles-of-mine").mkdir()
    for block in readme.blocks("toml", PAGE):
        name = block.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(block)
    return tmp_path


def plan(env: dict[str, str], mounts: dict[str, str]) -> dict[str, Any]:
    """Return the plan of a container's variables on H200, with this host's folders in place of the container's."""
    for inside, outside in mounts.items():
        env = {name: re.sub(rf"(?<!\w){re.escape(inside)}(?=/|$)", outside, value) for name, value in env.items()}
    run = run_dsv4("explain", "--format", "json", env={**os.environ, "HARDWARE": "h200", **env})
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def sources(run: readme.DockerRun, place: Path) -> dict[str, str]:
    return {inside: source.replace("$PWD", str(place)) for inside, (source, _) in run.volumes().items()}


def test_every_command_has_a_test() -> None:
    for command in COMMANDS:
        matches = [test for pattern, test in KNOWN.items() if re.fullmatch(pattern, command, re.DOTALL)]
        assert len(matches) == 1, f"no test knows `{command}`"
        assert callable(globals()[matches[0]])
    assert all(only(pattern) for pattern in KNOWN)


def test_fit_says_what_the_container_needs() -> None:
    (run,) = map(readme.docker_run, only("docker run --rm .*"))
    assert readme.stage(run.image) == "gpu"
    answered = run_dsv4(*run.words, env=os.environ)
    assert answered.returncode == 0, answered.stderr
    shared = RUNS[0].options["--shm-size"][0]
    assert f"The container needs {SIZE} GiB more memory than without, and --shm-size={shared}." in answered.stdout
    served = RUNS[0].environment()
    assert run.words[1:3] == ["--profile", served["PROFILE"]]
    assert run.words[-2:] == ["--model", served["MODEL"].partition("=")[0]]


def test_the_container_of_the_readme_is_replaced() -> None:
    assert shlex.split(only("docker stop .*")[0]) == ["docker", "stop", "dsv4", "&&", "docker", "rm", "dsv4"]
    assert [run.options["--name"] for run in (SERVED, *RUNS)] == [["dsv4"]] * (1 + len(RUNS))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.environment()["PROFILE"])
def test_a_container_has_the_shared_memory_that_its_plan_takes(run: readme.DockerRun, place: Path) -> None:
    """And the rest is as the README has it."""
    made = plan(run.environment(), sources(run, place))["settings"]
    assert made["kv-offloading-size"]["value"] == SIZE
    assert made["profile"]["value"] == run.environment()["PROFILE"]
    assert made["VLLM_API_KEY"]["origin"].endswith("/secrets/api-key")
    assert run.options["--shm-size"] == [f"{shm_gib(SIZE)}g"]
    varying = {"--shm-size", "-v", "-e"}
    assert {name: run.options[name] for name in run.options.keys() - varying} == {
        name: SERVED.options[name] for name in SERVED.options.keys() - varying
    }
    assert (run.image, run.words) == (SERVED.image, SERVED.words)
    assert SERVED.volumes().items() <= run.volumes().items()
    assert SERVED.environment().items() - run.environment().items() == {("PROFILE", SERVED.environment()["PROFILE"])}


def test_the_folder_of_files_is_mounted_and_the_containers_user_writes_it(place: Path) -> None:
    run = next(run for run in RUNS if "DSV4_PROFILES" in run.environment())
    made = plan(run.environment(), sources(run, place))["settings"]
    assert made[f"{EXTRA}.spec_name"]["value"] == TIERING
    (tier,) = made[f"{EXTRA}.secondary_tiers"]["value"]
    (install,) = map(shlex.split, only("sudo install .*"))
    option = dict(zip(install[3:-1:2], install[4:-1:2], strict=True))
    assert install[:3] == ["sudo", "install", "-d"]
    assert run.volumes()[tier["root_dir"]] == (install[-1], False)
    assert (option["-o"], option["-g"]) == tuple(map(str, USER))
    assert int(option["-m"], 8) & (stat.S_IRWXU | stat.S_IRWXO) == stat.S_IRWXU
    assert f"find {install[-1]} -name" in PAGE


def test_compose_gives_a_replica_what_its_plan_takes(place: Path) -> None:
    (export,) = only("export .*")
    exported = dict(word.split("=", 1) for word in shlex.split(export)[1:])
    assert {replicas_of(command) for command in only("docker compose up .*")} == {2, 1}
    services, given = readme.compose_services(f"{export.removeprefix('export ')} docker compose up")
    assert exported.items() <= given.items()
    checked = 0
    for name, service in services.items():
        if "replica" in name:
            mounts = {"/models": str(place / given["MODELS"]), "/run/secrets": str(place / "secrets")}
            env = readme.service_environment(service, given)
            known = {
                name: value for name, value in env.items() if name in Variables.model_fields and name != "DSV4_RUN_DIR"
            }
            assert plan(known, mounts)["settings"]["kv-offloading-size"]["value"] == SIZE
            assert limits(service, given) == (shm_gib(SIZE) * GIB, memory_gib(2, SIZE) * GIB)
            checked += 1
    assert checked == 2
    row = re.search(r"^\| Compose \| `(.*?)`, with `--profile tp4` `(.*?)` \|$", PAGE, re.MULTILINE)
    assert row
    assert dict(word.split("=") for word in row[1].split()).items() <= exported.items()
    four = {**exported, **dict([row[2].split("=")])}
    assert limits(readme.COMPOSE["services"]["replica-tp4"], four) == (shm_gib(SIZE) * GIB, memory_gib(4, SIZE) * GIB)


def replicas_of(command: str) -> int:
    """Return how many replicas a `docker compose up` starts: those it names, else all of the profile of .env."""
    named = shlex.split(command)[4:]
    services, _ = readme.compose_services(command)
    assert set(named) <= services.keys()
    assert not named or "balancer" in named
    return len([name for name in named or services if "replica" in name])


def limits(service: dict[str, Any], given: dict[str, str]) -> tuple[int, int]:
    """Return a service's shared memory and memory in bytes."""
    sizes = (memory(readme.interpolated(service[name], given)) for name in ("shm_size", "mem_limit"))
    return next(sizes), next(sizes)


def test_the_table_of_what_64_gib_need_names_the_same_sizes() -> None:
    assert f"| `docker run` | `--shm-size {shm_gib(SIZE)}g`, and {SIZE} GiB more in `--memory`" in PAGE
    assert f"`sizeLimit: {shm_gib(SIZE)}Gi` for the volume `shm`, and {SIZE}Gi more memory" in PAGE


def test_the_metrics_are_asked_for_where_they_are() -> None:
    (command,) = only("curl .*")
    url, pattern = re.findall(r"localhost:\S+|(?<=grep -E ')[^']+", command)
    assert url.partition("/")[0].replace("localhost", "127.0.0.1") in RUNS[0].ports()
    assert url.endswith(":8000/metrics")
    assert "$(cat secrets/api-key)" in command
    names = re.findall(r"`(vllm:\w+)`", PAGE)
    assert names
    assert [name for name in names if not re.search(pattern, name)] == []
