"""README.md, or another page, as a reader runs it: its blocks, their commands, and what a `docker` command says."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))

FLAGS = {"--rm", "-d"}
VALUES = {"--user", "--name", "--gpus", "--shm-size", "--stop-timeout", "-p", "-v", "-e"}


def blocks(language: str, text: str = TEXT) -> list[str]:
    """Return the code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def languages() -> list[str]:
    """Return the language of every code block, '' for one without."""
    return re.findall(r"^```(.*)$", TEXT, re.MULTILINE)[::2]


def commands(text: str = TEXT) -> list[str]:
    """
    Return every shell command in the order of the page, without comments.

    Each line is one; continued lines and quotes are joined.
    """
    found: list[str] = []
    for block in blocks("bash", text):
        pending = ""
        for line in re.sub(r" +# .*$", "", block, flags=re.MULTILINE).splitlines():
            pending += line + "\n"
            if not line.endswith("\\") and _is_whole(pending):
                found.append(pending.strip().replace("\\\n", ""))
                pending = ""
        assert not pending, f"an unfinished command: {pending}"
    return found


def _is_whole(text: str) -> bool:
    try:
        shlex.split(text)
    except ValueError:
        return False
    return True


@dataclass
class DockerRun:
    """A parsed `docker run`."""

    image: str = ""
    words: list[str] = field(default_factory=list)
    options: dict[str, list[str]] = field(default_factory=dict)

    def volumes(self) -> dict[str, tuple[str, bool]]:
        """Return what is mounted, by the path in the container: the source, and whether it is read-only."""
        parts = [volume.split(":") for volume in self.options.get("-v", [])]
        return {part[1]: (part[0], part[2:] == ["ro"]) for part in parts}

    def environment(self) -> dict[str, str]:
        """Return the variables."""
        return dict(item.split("=", 1) for item in self.options.get("-e", []))

    def ports(self) -> set[str]:
        """Return what is published, as ADDRESS:PORT of this host."""
        return {published.rpartition(":")[0] for published in self.options.get("-p", [])}


def docker_run(command: str) -> DockerRun:
    """Parse `docker run`; an option that is not known here fails the test that asks."""
    words = shlex.split(command)
    assert words[:2] == ["docker", "run"], command
    parsed, rest = DockerRun(), words[2:]
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        assert option in FLAGS | VALUES, f"no test knows `docker run {option}`"
        parsed.options.setdefault(option, []).append("" if option in FLAGS else rest.pop(0))
    parsed.image, *parsed.words = rest
    return parsed


def stage(image: str) -> str:
    """Return the Dockerfile's stage that the README builds under this name; the last one without --target."""
    built = [shlex.split(command) for command in commands() if command.startswith("docker build")]
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    for words in built:
        if words[words.index("-t") + 1] == image:
            target = words[words.index("--target") + 1] if "--target" in words else stages[-1]
            assert target in stages, f"no stage {target} in the Dockerfile"
            return target
    raise AssertionError(f"the README builds no image {image}")


def stage_environment(name: str) -> dict[str, str]:
    """Return the variables that a stage of the Dockerfile sets."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    own = re.search(rf"^FROM \S+ AS {name}$(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL)
    assert own, name
    lines = re.findall(r"^ENV (.*)$", own[1], re.MULTILINE)
    return dict(word.split("=", 1) for line in lines for word in shlex.split(line))


def interpolated(value: str, env: dict[str, str]) -> str:
    """Replace `${NAME:-default}` as Compose does."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: env.get(match[1]) or match[2], value)


def dotenv() -> dict[str, str]:
    """Return the variables of .env, which Compose reads."""
    lines = (ROOT / ".env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def compose_services(command: str) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the services that a `docker compose … up` starts, and the variables it is given."""
    words = shlex.split(command)
    given = {**dotenv(), **dict(word.split("=", 1) for word in words if re.match(r"[A-Z_0-9]+=", word))}
    named = [words[n + 1] for n, word in enumerate(words) if word == "--profile"] or [given["COMPOSE_PROFILES"]]
    known = {profile for service in COMPOSE["services"].values() for profile in service.get("profiles", [])}
    assert set(named) <= known, f"docker-compose.yml has no profile {named}"
    services = {
        name: service
        for name, service in COMPOSE["services"].items()
        if not service.get("profiles") or set(service["profiles"]) & set(named)
    }
    return services, given


def service_environment(service: dict[str, Any], given: dict[str, str]) -> dict[str, str]:
    """Return what a container sees of its service's variables: one without a value is passed on where it is set."""
    own = service["environment"]
    passed = {name: given.get(name) if value is None else str(value) for name, value in own.items()}
    return {name: value for name, value in passed.items() if value is not None}
