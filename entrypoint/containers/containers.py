"""
The settings of each container for the Docker Engine API (POST /containers/create). Pure, except for file times.

All containers have a read-only root, no capabilities, no new privileges, no network or IPC of the host, and bounded
logs, memory and PIDs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import replica
from ..fingerprint import fingerprint
from ..listen import API_PORT, HEALTH_PORT
from .daemon import CONFIGURATION, ROLE
from .deployment import USER, Deployment, stamps
from .placement import Group

NETWORK = "dsv4"
CACHE = "dsv4-cache"
CACHE_FOLDER = "/var/cache/dsv4"
HAPROXY_FOLDER = "/usr/local/etc/haproxy"
KEY = "/run/secrets/api-key"
CERTIFICATES = "/run/certificates"
BALANCER = "dsv4-balancer"
PREFIX = "dsv4-replica-"
ALIAS = "replica"
"""The name of all replicas in the network, which the balancer resolves by DNS."""
STATUS_PORT = 8404
HAPROXY_FILES = ("keys.lua", "fleet.html")
"""Files next to the balancer's configuration: the program of the keys, and the page at the status port."""
GPUS = "dsv4.gpus"
STOP_SECONDS = "dsv4.stop-seconds"
GIB = 2**30
LIMITS = {"memlock": -1, "stack": 64 * 2**20, "nofile": 65536}
"""The limits that NCCL and CUDA need in a GPU replica: unlimited pinned memory, deep stacks, many descriptors."""


def name_of(index: int) -> str:
    """Return the name of a replica's container."""
    return f"{PREFIX}{index}"


def replica_settings(deployment: Deployment, index: int, image: str, *, podman: bool) -> dict[str, Any]:
    """Return the body that creates replica `index`; `image` is the current id of the image."""
    gpus = deployment.groups[index]
    env = {
        **deployment.env,
        "API_KEY_FILE": KEY,
        "DSV4_KEY_LIMITS": "off",  # the balancer enforces them
        "DSV4_RUN_DIR": f"{CACHE_FOLDER}/run/{name_of(index)}",
        **({"DSV4_PROFILES": ":".join(map(str, deployment.profiles))} if deployment.profiles else {}),
    }
    shared = [*deployment.profiles, *deployment.kernels, *([deployment.weights] if deployment.weights else [])]
    mounts = [
        {"Type": "volume", "Source": CACHE, "Target": CACHE_FOLDER},
        *(_read_only(folder, str(folder)) for folder in shared),
        _read_only(deployment.key_file, KEY),
    ]
    memory = replica.memory_gib(len(gpus), deployment.offloading)
    body = {
        "Image": deployment.image,
        "User": _user(),
        "Cmd": ["serve", "--host", "0.0.0.0", *deployment.flags],  # noqa: S104  of its own network, not of the host's
        "Env": [f"{name}={value}" for name, value in sorted(env.items())],
        "ExposedPorts": {f"{HEALTH_PORT}/tcp": {}},
        "Labels": {ROLE: "replica", GPUS: ",".join(map(str, gpus)), STOP_SECONDS: str(deployment.stop_seconds)},
        "StopTimeout": deployment.stop_seconds,
        "HostConfig": {
            **_common(mounts, deployment.memory or memory * GIB, deployment.pids),
            "Tmpfs": {"/tmp": "exec"},  # noqa: S108  compiled kernels are loaded from there
            "ShmSize": (replica.shm_gib(deployment.offloading) if gpus else 1) * GIB,
            "PortBindings": {f"{HEALTH_PORT}/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
            **(_with_gpus(gpus, podman=podman) if gpus else {}),
        },
        **_network(name_of(index), ALIAS),
    }
    return _identified(body, image, list(deployment.profiles), deployment.key_file)


def balancer_settings(deployment: Deployment, image: str) -> dict[str, Any]:
    """Return the body that creates the balancer."""
    env = {
        "API_KEY_FILE": KEY,
        **({"REPLICA_MAXCONN": str(replica.WAITING * deployment.requests)} if deployment.requests else {}),
        **deployment.balancer_env,
    }
    certificate = {file: f"{CERTIFICATES}/{file.name}" for file in deployment.certificate}
    if certificate:
        env["BALANCER_CERTIFICATE"] = next(iter(certificate.values()))
    configuration = [deployment.haproxy, *(deployment.haproxy.with_name(name) for name in HAPROXY_FILES)]
    mounts = {file: f"{HAPROXY_FOLDER}/{file.name}" for file in configuration}
    mounts |= {deployment.key_file: KEY, **certificate}
    ports = {API_PORT: {"HostPort": str(deployment.port)}, STATUS_PORT: {"HostIp": "127.0.0.1", "HostPort": ""}}
    body = {
        "Image": deployment.balancer_image,
        "User": _user(),
        "Env": [f"{name}={value}" for name, value in sorted(env.items())],
        "ExposedPorts": {f"{port}/tcp": {} for port in ports},
        "Labels": {ROLE: "balancer", STOP_SECONDS: str(deployment.stop_seconds)},
        "StopSignal": "SIGUSR1",  # finish what runs
        "StopTimeout": deployment.stop_seconds,
        "HostConfig": {
            **_common([_read_only(file, target) for file, target in mounts.items()], GIB, 1024),
            "Tmpfs": {"/run/haproxy": "mode=1777"},  # its socket for `disable server` and the like
            "PortBindings": {f"{port}/tcp": [bound] for port, bound in ports.items()},
        },
        **_network(BALANCER),
    }
    files = [file for file in mounts if file != deployment.key_file]
    return _identified(body, image, files, deployment.key_file)


def device_request(gpus: Group, *, podman: bool) -> dict[str, Any]:
    """Return the request for GPUs: to Docker through NVIDIA's runtime, to podman by their CDI names."""
    if podman:
        return {"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={gpu}" for gpu in gpus]}
    return {"DeviceIDs": [str(gpu) for gpu in gpus], "Capabilities": [["gpu"]]}


def _with_gpus(gpus: Group, *, podman: bool) -> dict[str, Any]:
    return {
        "DeviceRequests": [device_request(gpus, podman=podman)],
        "Ulimits": [{"Name": name, "Soft": most, "Hard": most} for name, most in LIMITS.items()],
    }


def _common(mounts: list[dict[str, Any]], memory: int, pids: int) -> dict[str, Any]:
    return {
        "Memory": memory,
        "PidsLimit": pids,
        "NetworkMode": NETWORK,
        "Mounts": mounts,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "RestartPolicy": {"Name": "unless-stopped"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "50m", "max-file": "5"}},
    }


def _user() -> str:
    return f"{USER[0]}:{USER[1]}"


def _network(*names: str) -> dict[str, Any]:
    return {"NetworkingConfig": {"EndpointsConfig": {NETWORK: {"Aliases": list(names)}}}}


def _read_only(source: Path, target: str) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": True}


def _identified(body: dict[str, Any], image: str, files: list[Path], key_file: Path) -> dict[str, Any]:
    """Add what changes with the container: of the key file, which is read again while it runs, only another file."""
    identity = fingerprint(body, image, stamps(files), key_file.stat().st_ino)
    return {**body, "Labels": {**body["Labels"], CONFIGURATION: identity}}
