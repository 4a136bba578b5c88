"""A Kustomize overlay over the shipped base: what its files say. Pure; the values are checked before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from .weights import Weights

PRODUCT = "nvidia.com/gpu.product"
"""The label that NVIDIA's GPU feature discovery puts on nodes: NVML's name with hyphens for spaces."""
PRE_STOP, SPARE = 5, 5
"""Seconds of the base's preStop, and to spare, in terminationGracePeriodSeconds."""


@dataclass(frozen=True)
class Overlay:
    """One fleet. `env` is what a replica is told beside its profile; `gpus` are those of one replica."""

    replicas: int
    gpus: int
    products: tuple[str, ...]
    env: Mapping[str, str]
    weights: Weights
    stop_seconds: int
    """What a drain takes at most, as `docker stop --time` would be told."""
    namespace: str = "dsv4"
    image: tuple[str, str] | None = None
    """Name and digest; None leaves the base's placeholder."""
    fetched: str = ""
    """What the component `fetch` fetches: a model's name or a repository."""
    command: str = ""
    """The command line that made this."""
    notes: tuple[str, ...] = ()

    @property
    def cpus(self) -> int:
        """CPU cores that a replica asks for: four a GPU, as the shipped overlays. Unmeasured."""
        return 4 * self.gpus

    @property
    def memory_gib(self) -> int:
        """Memory of a replica in GiB, its 16 GiB of shared memory included: 32, and 32 a GPU. Unmeasured."""
        return 32 + 32 * self.gpus


def files(one: Overlay) -> dict[str, str]:
    """Return the overlay's own files by name; `base` and `components` are copied beside them."""
    return {"kustomization.yaml": _kustomization(one), "replica.yaml": _replica(one)}


def _kustomization(one: Overlay) -> str:
    lines = [
        f"# {one.command}",
        *(f"# Before it is applied: {note}." for note in one.notes),
        "apiVersion: kustomize.config.k8s.io/v1beta1",
        "kind: Kustomization",
        f'namespace: "{one.namespace}"',
        "resources: [base]",
    ]
    if one.weights.component:
        lines.append(f"components: [components/{one.weights.component}]")
    lines += ["replicas:", f"  - {{name: dsv4, count: {one.replicas}}}"]
    if one.image:
        name, digest = one.image
        lines += ["images:", f"  - {{name: dsv4-serve, newName: {json.dumps(name)}, digest: {json.dumps(digest)}}}"]
    return "\n".join([*lines, "patches:", "  - path: replica.yaml", ""])


def _replica(one: Overlay) -> str:
    gpus = f'cpu: "{one.cpus}", memory: {one.memory_gib}Gi, nvidia.com/gpu: {one.gpus}'
    lines = [
        "apiVersion: apps/v1",
        "kind: Deployment",
        "metadata:",
        "  name: dsv4",
        "  namespace: dsv4 # the base's own; kustomization.yaml says where it goes",
        "spec:",
        "  template:",
        "    spec:",
        f"      terminationGracePeriodSeconds: {PRE_STOP + one.stop_seconds + SPARE}",
        "      affinity:",
        "        nodeAffinity:",
        "          requiredDuringSchedulingIgnoredDuringExecution:",
        "            nodeSelectorTerms:",
        "              - matchExpressions:",
        f"                  - {{key: {PRODUCT}, operator: In, values: [{', '.join(one.products)}]}}",
    ]
    if one.fetched:
        lines.append("      initContainers:")
        for name in ("fetch", "verify"):
            lines += [f"        - name: {name}", f"          env: [{_variable('WEIGHTS', one.fetched)}]"]
    lines += [
        "      containers:",
        "        - name: replica",
        "          env:",
        *(f"            - {_variable(name, value)}" for name, value in one.env.items()),
        "          resources:",
        f"            requests: {{{gpus}}}",
        f"            limits: {{{gpus.partition(', ')[2]}}}",
        "      volumes:",
        "        - name: models",
    ]
    if not one.weights.volume.startswith("persistentVolumeClaim"):
        lines.append("          persistentVolumeClaim: null")
    return "\n".join([*lines, f"          {one.weights.volume}", ""])


def _variable(name: str, value: str) -> str:
    return f"{{name: {name}, value: {json.dumps(value)}}}"
