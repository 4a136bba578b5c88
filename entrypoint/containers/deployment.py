"""The deployment that `dsv4 up` starts: replicas, their balancer, and the settings of both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..api_key import key_in
from ..errors import ConfigError
from ..listen import API_PORT
from ..plan import Setting
from ..resolve.environment import Variables
from ..secret import is_secret
from .placement import Group

IMAGE = "dsv4-serve"
CPU_IMAGE = "dsv4-serve:cpu"
BALANCER_IMAGE = "docker.io/library/haproxy:3.0@sha256:66eb31bc04389738bb6595597feab18733194b14238e4f4e0986013ed6e31dae"
"""HAProxy 3.0.28, the official image; a tag alone moves. The same as in docker-compose.yml."""
SHIPPED = Path(__file__).resolve().parents[2]
"""The parent of deploy/ and profiles/, in a checkout and in an installed package."""
HAPROXY = SHIPPED / "deploy/haproxy/haproxy.cfg"
USER = (2000, 0)
"""User and group of every process in both images; they have to be able to read the key file."""

PASSED_ON = ("DSV4_GATE_", "DSV4_SUPERVISE_", "VLLM_", "NCCL_", "OTEL_")
"""Prefixes of the variables that are passed on."""
OWN = {"PORT", "API_KEY_FILE", "DSV4_KEY_LIMITS", "DSV4_VLLM", "DSV4_HEALTH_HOST", "DSV4_HEALTH_PORT", "DSV4_RUN_DIR"}
"""Variables that are not passed on: each container has its own."""
PIDS, _MOST_PIDS = 16384, 1 << 22
"""Processes and threads of a replica, as in docker-compose.yml, and the most that Linux has."""
OF_BALANCER = (
    "REPLICA_MAXCONN",
    "REPLICA_TIMEOUT",
    "QUEUE_TIMEOUT",
    "BALANCER_MAXCONN",
    "BALANCER_SOURCE_MAXCONN",
    "BALANCER_MAX_BODY",
    "CORS_ORIGINS",
)


@dataclass(frozen=True)
class Deployment:
    """`groups` has the GPUs of each replica; folders and files are this host's, absolute; `port` is the balancer's."""

    groups: tuple[Group, ...]
    key_file: Path
    image: str = IMAGE
    balancer_image: str = BALANCER_IMAGE
    flags: tuple[str, ...] = ()
    """The arguments after `serve`."""
    env: Mapping[str, str] = field(default_factory=dict)
    balancer_env: Mapping[str, str] = field(default_factory=dict)
    certificate: tuple[Path, ...] = ()
    """The balancer's certificate, and its key if that is a file of its own."""
    weights: Path | None = None
    """The folder of the model; None where the image has it, or vLLM fetches it."""
    profiles: tuple[Path, ...] = ()
    kernels: tuple[Path, ...] = ()
    """Folders of kernel packs, for every start to import."""
    haproxy: Path = HAPROXY
    port: int = API_PORT
    stop_seconds: int = 150
    """The longest drain: for balancers to notice, to finish requests, to release the GPUs, and 5 s."""
    requests: int = 0
    """Sequences in one step of a replica (max-num-seqs); 0 where the plan has none."""
    memory: int = 0
    """The memory limit of a replica in bytes; 0 for one by its GPUs and what it offloads."""
    offloading: int = 0
    """GiB of host memory that KV offloading takes."""
    pids: int = PIDS
    """The most processes and threads of a replica."""


def passed_on(environ: Mapping[str, str], choices: Mapping[str, Setting]) -> dict[str, str]:
    """Return the containers' variables: what `dsv4` reads of this environment, overridden by the choices of flags."""
    known = set(Variables.model_fields) - OWN
    env = {k: v for k, v in environ.items() if ((v and k in known) or _passes(k, v)) and not is_secret(k)}
    names = {"profile": "PROFILE", "model": "MODEL", "hardware": "HARDWARE", "nccl": "DSV4_NCCL"}
    return env | {names[key]: str(choice.value) for key, choice in choices.items() if key in names}


def _passes(name: str, value: str) -> bool:
    """Tell whether a prefix passes a variable on; an empty one of vLLM is a choice too, as for `dsv4 serve`."""
    return name.startswith(PASSED_ON) and (bool(value) or name.startswith("VLLM_"))


def memory(size: str) -> int:
    """Return the bytes of a size as compose writes it (`96g`), 0 for none; raise ConfigError."""
    if not size:
        return 0
    import docker.errors
    from docker.utils import parse_bytes

    try:
        found = int(parse_bytes(size)) if size.isascii() else 0
    except (docker.errors.DockerException, OverflowError):
        found = 0
    if not 0 < found < 1 << 63:
        raise ConfigError(f"environment REPLICA_MEMORY = {size}: this is not a size; write it as 96g.")
    return found


def pids(number: str) -> int:
    """Return a number of processes and threads, for none the default; raise ConfigError."""
    if not number:
        return PIDS
    if not (number.isascii() and number.isdigit() and 0 < int(number) <= _MOST_PIDS):
        raise ConfigError(f"environment REPLICA_PIDS = {number}: this is not a number from 1 to {_MOST_PIDS}.")
    return int(number)


def folder(path: str, option: str) -> Path:
    """Return the absolute path of a folder of this host; raise ConfigError if it does not exist."""
    absolute = Path(path).absolute()
    if not absolute.is_dir():
        raise ConfigError(f"{option} {path}: this folder does not exist on this host.")
    return absolute


def certificate(path: str, option: str) -> tuple[Path, ...]:
    """Return a certificate and its key; raise ConfigError when the containers' user could not read them."""
    file = Path(path).absolute()
    if not file.is_file():
        raise ConfigError(f"{option} {path}: this file does not exist on this host.")
    files = tuple(one for one in (file, file.with_suffix(".key")) if one.is_file())
    for one in files:
        check_readable(one, option, str(one))
    return files


def key_file(path: str, option: str) -> Path:
    """Return a file with the bearer key; raise ConfigError when the containers' user could not read it."""
    file = Path(path).absolute()
    key_in(str(file), f"{option} {path}")
    check_readable(file, option, path)
    return file


def check_readable(file: Path, option: str, path: str) -> None:
    """Raise ConfigError when the containers' user could not read a file of this host."""
    status, (user, group) = file.stat(), USER
    bits = 0o004 | 0o040 * (status.st_gid == group) | 0o400 * (status.st_uid == user)
    if not status.st_mode & bits:
        raise ConfigError(
            f"{option} {path}: the containers, which run as {user}:{group}, cannot read it (mode"
            f" {status.st_mode & 0o777:03o}, owner {status.st_uid}:{status.st_gid}); mode 644 allows it, and"
            " mode 700 of its folder keeps other users out."
        )


def _profiles_in(folder: Path) -> Iterator[Path]:
    """Return profile files, and the tables of kernels beside hardware files."""
    return (file for file in folder.rglob("*") if file.suffix in (".toml", ".json") and file.is_file())


def stamps(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Return what changes with files and folders, without their content: name, size, time."""
    every = [file for path in paths for file in (sorted(_profiles_in(path)) if path.is_dir() else [path])]
    stats = [(file, file.stat()) for file in every]
    return [(str(file), status.st_size, status.st_mtime_ns) for file, status in stats]
