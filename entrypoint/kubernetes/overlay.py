"""Build a Kustomize overlay over the shipped base, as plain data, from checked values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .weights import WeightSource

PRODUCT = "nvidia.com/gpu.product"
"""The label that NVIDIA's GPU feature discovery puts on nodes: NVML's name with hyphens for spaces."""
PRE_STOP, SPARE = 5, 5
"""Seconds in terminationGracePeriodSeconds for the base's preStop, and a margin."""
_BASE_VOLUME: Mapping[str, Any] = {"persistentVolumeClaim": None}
"""Removes the base's claim, which a strategic merge would keep in addition to another source of the volume."""


_OWN = ("replica.yaml", "group.yaml")
_ARCHITECTURES = {"aarch64": "arm64"}
"""Kubernetes' names of processors (`kubernetes.io/arch`)."""


@dataclass(frozen=True)
class Overlay:
    """
    One fleet. `env` has the variables of a replica; `gpus` are those of one pod.

    A replica of several `nodes` is a group of as many pods; `processor` is the nodes', if it is not x86-64.
    """

    replicas: int
    gpus: int
    products: tuple[str, ...]
    env: Mapping[str, str]
    weights: WeightSource
    stop_seconds: int
    """The longest drain, as for `docker stop --time`."""
    nodes: int = 1
    processor: str = ""
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
        """CPU cores that a replica requests: four for each GPU, as in the shipped overlays. Unmeasured."""
        return 4 * self.gpus

    @property
    def memory_gib(self) -> int:
        """Memory of a replica in GiB, its 16 GiB of shared memory included: 32, and 32 for each GPU. Unmeasured."""
        return 32 + 32 * self.gpus


def documents(overlay: Overlay) -> dict[str, dict[str, Any]]:
    """Return the overlay's own documents by file name, but for a group's; `base` and `components` are copied too."""
    replica = {} if overlay.nodes > 1 else {"replica.yaml": _replica(overlay)}
    return {"kustomization.yaml": _kustomization(overlay), **replica}


def components(overlay: Overlay) -> tuple[str, ...]:
    """Return the folders of components/ that the overlay needs."""
    if overlay.nodes > 1:
        return ("several-nodes",)
    return (overlay.weights.component,) if overlay.weights.component else ()


def comments(overlay: Overlay) -> dict[str, tuple[str, ...]]:
    """Return the comment lines above each document, by file name."""
    prerequisites = (f"Before it is applied: {note}." for note in overlay.notes)
    return {
        "kustomization.yaml": (overlay.command, *prerequisites),
        **dict.fromkeys(_OWN, ("The namespace is the base's own; kustomization.yaml sets the actual one.",)),
    }


def _kustomization(overlay: Overlay) -> dict[str, Any]:
    is_group = overlay.nodes > 1
    document: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": overlay.namespace,
        "resources": ["base", "group.yaml"] if is_group else ["base"],
    }
    if needed := components(overlay):
        document["components"] = [f"components/{name}" for name in needed]
    if is_group:
        return document
    document["replicas"] = [{"name": "dsv4", "count": overlay.replicas}]
    if overlay.image:
        name, digest = overlay.image
        document["images"] = [{"name": "dsv4-serve", "newName": name, "digest": digest}]
    return {**document, "patches": [{"path": "replica.yaml"}]}


def _replica(overlay: Overlay) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "dsv4", "namespace": "dsv4"},
        "spec": {"template": {"spec": pod_patch(overlay)}},
    }


def pod_patch(overlay: Overlay) -> dict[str, Any]:
    """Return what the overlay sets of a pod."""
    label = {"key": PRODUCT, "operator": "In", "values": list(overlay.products)}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [label]}]}
    limits = {"memory": f"{overlay.memory_gib}Gi", "nvidia.com/gpu": overlay.gpus}
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": PRE_STOP + overlay.stop_seconds + SPARE,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
    }
    if overlay.processor:
        pod["nodeSelector"] = {"kubernetes.io/arch": _ARCHITECTURES[overlay.processor]}
    if overlay.fetched:
        fetched = {"WEIGHTS": overlay.fetched}
        pod["initContainers"] = [{"name": name, "env": _variables(fetched)} for name in ("fetch", "verify")]
    pod["containers"] = [
        {
            "name": "replica",
            "env": _variables(overlay.env),
            "resources": {"requests": {"cpu": str(overlay.cpus), **limits}, "limits": dict(limits)},
        }
    ]
    pod["volumes"] = [{"name": "models", **_BASE_VOLUME, **overlay.weights.volume}]
    return pod


def _variables(env: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in env.items()]
