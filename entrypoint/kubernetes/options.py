"""Turn the options of `dsv4 manifests` into an overlay."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .. import replica
from ..errors import ConfigError
from ..parallel import Parallel, parallel_of
from ..plan import TENSOR_PARALLEL_SIZE, Plan, Setting
from ..request import Layer, Request
from ..resolve import environment
from ..vllm_schema.schema import VERSION
from . import components as parts
from . import limits, own_profiles
from . import weights as places
from .edits import most_replicas
from .overlay import Overlay

if TYPE_CHECKING:
    from ..machine.gpus import HostGpus
    from ..resolve.select import Selection


_OF_THE_IMAGE = "x86-64"
"""What the Dockerfile is for."""


def overlay(options: argparse.Namespace, request: Request) -> Overlay:
    """
    Return the overlay that the options describe, with what has to exist before it is applied.

    Raise ConfigError for what `dsv4 explain` refuses, and for an image, a name or a path that Kubernetes would refuse.
    """
    extras = parts.read(options.extras)
    folders = environment.folders()
    selection, plan, devices = _resolved(request, options.nodes, folders)
    shape, stored = parallel_of(plan.flags), places.read(options.weights)
    if shape.nodes > 1 and stored.component == "fetch":
        raise ConfigError(
            f"--weights fetch is for replicas of one node, and this one has {shape.nodes}: fetch the weights into a"
            " claim or a folder of every node, and use --weights pvc:CLAIM or hostpath:/FOLDER."
        )
    parts.require_fit(extras, shape.nodes, stored.component)
    folder, fetched = _folder(selection, fetch=stored.component == "fetch" or "node-disk" in extras)
    if not places.NAME.fullmatch(options.namespace):
        raise ConfigError(
            f"--namespace {options.namespace}: must be lower-case letters, digits and hyphens, 63 at most."
        )
    image = places.digest(options.image, f"--image {options.image}") if options.image else None
    made = Overlay(
        replicas=options.replicas,
        gpus=replica.gpus(plan),
        nodes=shape.nodes,
        processor=_other_processor(selection),
        devices=devices,
        env=_env(selection, request, folder),
        weights=stored,
        stop_seconds=replica.stop_seconds(plan),
        namespace=options.namespace,
        image=image,
        fetched=fetched,
        hardware=selection.hardware.name,
        sequences=replica.sequences(plan),
        offloading=replica.offloading_gib(plan),
        extras=extras,
        profiles=own_profiles.read(folders),
        command=_command(options, extras),
    )
    if (most := most_replicas(made)) < made.replicas:
        raise ConfigError(f"--with autoscale={most}: must be at least --replicas, {made.replicas}.")
    notes = (*_of_nodes(selection, shape), *_notes(options, made, folder))
    capacity = _capacity(selection, plan, made.replicas)
    return dataclasses.replace(made, notes=notes, warnings=limits.warnings(made), capacity=capacity)


def _capacity(selection: Selection, plan: Plan, replicas: int) -> str:
    from ..resolve import memory_inputs

    estimate = memory_inputs.estimate(selection, plan.flags)
    if estimate is None or not estimate.sized:
        return ""
    each, held = replica.sequences(plan), estimate.steady_state_requests
    running = f"{each * replicas:,} requests run at once, {each:,} on each replica; " if each else ""
    return (
        f"{running}the KV cache of a replica has room for {held:,} of {estimate.context:,} tokens each"
        f" (counted for vLLM {VERSION}, not measured)"
    )


def _other_processor(selection: Selection) -> str:
    own: str = selection.hardware.get("processor")
    return "" if own == _OF_THE_IMAGE else own


def _of_nodes(selection: Selection, shape: Parallel) -> list[str]:
    """Return what the nodes need that a replica on one x86-64 node does not."""
    notes = []
    if other := _other_processor(selection):
        notes.append(
            f"the processors of {selection.hardware.name} are {other}, and the Dockerfile is for {_OF_THE_IMAGE}: build"
            f" an image for {other} with vLLM {VERSION}; none was tried"
        )
    if shape.nodes > 1:
        notes.append(
            f"each replica is a group of {shape.nodes} pods, one a node, with {shape.node_gpus} GPU"
            f"{'s' * (shape.node_gpus != 1)} each: install LeaderWorkerSet 0.6.0 or later"
        )
    return notes


def _resolved(request: Request, nodes: int | None, folders: list[Path]) -> tuple[Selection, Plan, tuple[str, ...]]:
    """
    Resolve as a pod will: by the choices and profile files, without this shell's other variables and GPUs.

    Hosts with a fixed number of GPUs make as many nodes as the plan needs, unless `nodes` says another number.

    Also return NVML's names of the nodes' GPUs.
    """
    from ..catalog.catalog import Catalog
    from ..doctor import registry
    from ..resolve import auto, constraints
    from ..resolve.layers import resolve
    from ..resolve.select import select

    catalog = Catalog(folders)

    def find() -> HostGpus:
        raise ConfigError(
            "Name the nodes' GPUs: --hardware (HARDWARE), one of " + ", ".join(catalog.names("hardware")) + "."
        )

    size = request.flag(TENSOR_PARALLEL_SIZE)
    flags = {TENSOR_PARALLEL_SIZE: size} if size else {}
    if nodes:
        flags["nnodes"] = Setting(nodes, "command line --nodes")
    request = dataclasses.replace(request, environment=Layer(), command_line=Layer(flags), operator={})
    request = auto.settle(catalog, request, find)
    selection = select(catalog, request, find)
    devices = tuple(selection.hardware.get("nvml_names"))
    if not devices:
        raise ConfigError(
            f"Manifests are for GPUs, but {selection.hardware.name} has no nvml-names in its profile file;"
            " for CPUs use the shipped overlay deploy/kubernetes/overlays/demo."
        )
    constraints.require_known(selection, request.skip, lambda: registry.NAMES)
    plan, each = resolve(selection, request), selection.hardware.get("gpus_per_host")
    if each and parallel_of(plan.flags).node_gpus > each:
        several = -(-parallel_of(plan.flags).gpus // each)
        if nodes:
            raise ConfigError(
                f"--nodes {nodes}: a host of {selection.hardware.name} has {each} GPU{'s' * (each != 1)}, and"
                f" {parallel_of(plan.flags).node_gpus} are needed on each; use --nodes {several}."
            )
        flags["nnodes"] = Setting(several, f"{selection.hardware.file_of('gpus_per_host')}: gpus-per-host")
        request = dataclasses.replace(request, command_line=Layer(flags))
        selection = select(catalog, request, find)
        plan = resolve(selection, request)
    return selection, plan, devices


def _folder(selection: Selection, *, fetch: bool) -> tuple[str, str]:
    """Return the folder of the weights in a pod, and what is fetched into it, if anything."""
    name, where = selection.model.name, str(selection.where.value) if selection.where else ""
    if not where:
        return f"{places.MOUNTED}/{name}", name if fetch else ""
    if fetch and not where.startswith("/"):
        return f"{places.MOUNTED}/{where}", where
    if fetch or not where.startswith(f"{places.MOUNTED}/"):
        origin = selection.where.origin if selection.where else ""
        allowed = "a model or a repository" if fetch else f"a model, or NAME={places.MOUNTED}/FOLDER"
        raise ConfigError(f"{origin}: {where!r} does not exist in a pod; give {allowed}.")
    return where, ""


def _env(selection: Selection, request: Request, folder: str) -> dict[str, str]:
    env = {
        "PROFILE": selection.profile.name,
        "MODEL": f"{selection.model.name}={folder}",
        "TP": str(selection.tensor_parallel_size),
    }
    if nccl := request.choices.get("nccl"):
        env["DSV4_NCCL"] = str(nccl.value)
    if request.skip:
        env["DSV4_SKIP"] = ",".join(request.skip)
    return env


def _notes(options: argparse.Namespace, made: Overlay, folder: str) -> list[str]:
    space = options.namespace
    notes = [f"`kubectl create namespace {space}`"] if space != "default" else []
    notes.append(
        f"`kubectl -n {space} create secret generic dsv4-api-key --from-file=api-key=FILE`, where FILE holds"
        " the bearer key"
    )
    if "node-disk" in made.extras:
        notes.append("the namespace must allow hostPath")
    else:
        notes.append(made.weights.note)
    if not made.fetched:
        notes.append(f"the weights have to be on the volume, in {folder.removeprefix(places.MOUNTED)}")
    if not options.image:
        notes.append("the image has no digest yet; give --image REF@sha256:…")
    return [*notes, *(note for name in made.extras if (note := parts.COMPONENTS[name].note))]


def _command(options: argparse.Namespace, extras: Mapping[str, str]) -> str:
    argv = ["dsv4", "manifests"]
    for name in ("profile", "model", "hardware", "tp", "nccl", "replicas", "nodes", "weights", "image", "namespace"):
        if (value := getattr(options, name)) is not None:
            argv += [f"--{name}", str(value)]
    if extras:
        argv += ["--with", ",".join(f"{name}={value}" if value else name for name, value in extras.items())]
    return shlex.join([*argv, *(argument for name in options.skip for argument in ("--skip", name))])
