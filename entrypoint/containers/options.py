"""Turn the options of `dsv4 up` into a deployment."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import replica
from ..errors import ConfigError
from ..machine.topology import Topology
from ..plan import Plan
from ..request import Request
from ..resolve import environment
from ..secret import masked
from . import deployment as make
from . import placement

DEMO_MODEL = "demo=/usr/share/dsv4/demo"
"""The model in the image `dsv4-serve:cpu`."""
KEY_FILE = "secrets/api-key"
"""The default file of the key, as in docker-compose.yml."""


def with_demo(options: argparse.Namespace, environ: Mapping[str, str]) -> argparse.Namespace:
    """Add what profile `demo` means for `up`: the CPU image, and the model in it."""
    if (options.profile or environ.get("PROFILE")) != "demo":
        return options
    model = options.model or (None if environ.get("MODEL") else DEMO_MODEL)
    image = options.image or environ.get("DSV4_CPU_IMAGE") or make.CPU_IMAGE
    return argparse.Namespace(**{**vars(options), "model": model, "image": image})


def images(options: argparse.Namespace, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the names of both images: of the replicas and of the balancer."""
    return (
        options.image or environ.get("DSV4_IMAGE") or make.IMAGE,
        options.balancer_image or environ.get("BALANCER_IMAGE") or make.BALANCER_IMAGE,
    )


def deployment(
    options: argparse.Namespace, argv: Sequence[str], request: Request, plan: Plan, topology: Topology
) -> make.Deployment:
    """
    Return the deployment by the options of `up`, laid over the environment.

    `plan` is that of one replica, resolved here from the same arguments. Raise ConfigError or HostError.
    """
    check_no_secret(request)
    on_cpu = plan.choices["hardware"].value == "cpu"
    replica.require_one_host(plan)
    size = 0 if on_cpu else replica.gpus(plan)
    if options.gpus:
        groups = placement.read(options.gpus, size, topology.gpus)
        if options.replicas not in (None, len(groups)):
            raise ConfigError(
                f"--replicas {options.replicas} contradicts the number of --gpus, {len(groups)}; give one --gpus for"
                " each replica."
            )
    else:
        groups = placement.place(topology, size, options.replicas)
    weights = _weights(str(plan.flags["model"].value))
    env = make.passed_on(request.operator, request.choices)
    image, balancer_image = images(options, request.operator)
    if tp := getattr(options, "tp", None):
        env["TP"] = str(tp)
    if request.skip:
        env["DSV4_SKIP"] = ",".join(request.skip)
    kernels = _kernels(env)
    return make.Deployment(
        groups=groups,
        key_file=_key_file(options, request.operator),
        image=image,
        balancer_image=balancer_image,
        flags=tuple(argv),
        env=env,
        balancer_env={name: request.operator[name] for name in make.OF_BALANCER if request.operator.get(name)},
        certificate=_certificate(request.operator),
        weights=weights,
        profiles=tuple(make.folder(str(folder), "DSV4_PROFILES") for folder in environment.folders()),
        kernels=kernels,
        port=options.port,
        stop_seconds=replica.stop_seconds(plan),
        requests=replica.sequences(plan),
        offloading=replica.offloading_gib(plan),
        memory=make.memory(request.operator.get("REPLICA_MEMORY", "")),
        pids=make.pids(request.operator.get("REPLICA_PIDS", "")),
    )


def check_no_secret(request: Request) -> None:
    """Raise ConfigError for a secret among the flags: they become part of the containers' description."""
    for name, setting in request.command_line.flags.items():
        if masked(name, setting.value) != setting.value:
            instead = "--api-key-file FILE" if name == "api-key" else "a file that a profile or the image names"
            raise ConfigError(
                f"--{name} would be visible to everyone who can list containers; write it to a file: {instead}."
            )


def _certificate(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files of the certificate that BALANCER_CERTIFICATE names."""
    named = environ.get("BALANCER_CERTIFICATE")
    return make.certificate(named, "environment BALANCER_CERTIFICATE") if named else ()


def _kernels(env: dict[str, str]) -> tuple[Path, ...]:
    """Return the folders that DSV4_KERNELS names, and make their paths in it absolute, as they are mounted."""
    named = [part.strip() for part in env.get("DSV4_KERNELS", "").split(",") if part.strip()]
    folders = {part: make.folder(part, "DSV4_KERNELS") for part in named if "://" not in part}
    if named:
        env["DSV4_KERNELS"] = ",".join(str(folders.get(part, part)) for part in named)
    return tuple(folders.values())


def _weights(model: str) -> Path | None:
    """Return the folder to mount for a model: its own, or for a Hub snapshot the repository that it links into."""
    if not model.startswith(("/", ".", "~")) or model == DEMO_MODEL.partition("=")[2]:
        return None
    folder = make.folder(model, "--model")
    return folder.parents[1] if folder.parent.name == "snapshots" else folder


def _key_file(options: argparse.Namespace, environ: Mapping[str, str]) -> Path:
    if options.api_key_file:
        return make.key_file(options.api_key_file, "--api-key-file")
    if file := environ.get("API_KEY_FILE"):
        return make.key_file(file, "environment API_KEY_FILE")
    if Path(KEY_FILE).exists():
        return make.key_file(KEY_FILE, "the default")
    raise ConfigError(
        f"There is no {KEY_FILE}, and the balancer requires a bearer key; create one with `mkdir -m 700 secrets &&"
        f" openssl rand -hex 32 >{KEY_FILE} && chmod 644 {KEY_FILE}`, or name a file: --api-key-file (API_KEY_FILE)."
    )
