"""Build a Kustomize overlay over the shipped base, as plain data, from checked values. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..replica import memory_gib, shm_gib
from .weights import MOUNTED, WeightSource

PRODUCT = "nvidia.com/gpu.product"
"""The label that NVIDIA's GPU feature discovery puts on nodes: NVML's name with hyphens for spaces."""
PRE_STOP, SPARE = 5, 5
"""Seconds in terminationGracePeriodSeconds for the base's preStop, and a margin."""
_BASE_VOLUME: Mapping[str, Any] = {"persistentVolumeClaim": None}
"""Removes the base's claim, which a strategic merge would keep in addition to another source of the volume."""


_OWN = ("replica.yaml", "group.yaml", "disk.yaml")
PROFILES = "/etc/dsv4/profiles"
"""Where a pod has the profile files of the operator."""
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
    devices: tuple[str, ...]
    """NVML's names of the nodes' GPUs."""
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
    """What the component `fetch` or `node-disk` fetches: a model's name or a repository."""
    hardware: str = ""
    sequences: int = 0
    """How many requests a step of a replica computes; 0 if vLLM decides."""
    offloading: int = 0
    """GiB of host memory that KV offloading takes in a pod."""
    extras: Mapping[str, str] = field(default_factory=dict)
    """The components of `--with` and their values, in their order."""
    profiles: Mapping[str, str] = field(default_factory=dict)
    """The operator's profile files: text by path, as in profiles/."""
    command: str = ""
    """The command line that made this."""
    capacity: str = ""
    """How many requests run at once, and how many a KV cache holds as `dsv4 fit` counts; empty if that is unknown."""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """Numbers that exceed what was measured or counted."""

    @property
    def products(self) -> tuple[str, ...]:
        """The labels of the nodes' GPUs."""
        return tuple(name.replace(" ", "-") for name in self.devices)

    @property
    def cpus(self) -> int:
        """CPU cores that a replica requests: four for each GPU, as in the shipped overlays. Unmeasured."""
        return 4 * self.gpus

    @property
    def memory_gib(self) -> int:
        """Memory of a replica in GiB."""
        return memory_gib(self.gpus, self.offloading)


def documents(overlay: Overlay) -> dict[str, dict[str, Any]]:
    """Return the overlay's own documents by file name, but for a group's; `base` and `components` are copied too."""
    replica = {} if overlay.nodes > 1 else {"replica.yaml": _replica(overlay)}
    disk = {"disk.yaml": _disk(overlay)} if "node-disk" in overlay.extras else {}
    return {"kustomization.yaml": _kustomization(overlay), **replica, **disk}


def components(overlay: Overlay) -> tuple[str, ...]:
    """Return the folders of components/ that the overlay needs, in order."""
    storage = "several-nodes" if overlay.nodes > 1 else overlay.weights.component
    by_disk = {"kernels"} if "node-disk" in overlay.extras else set()  # it imports the pack for the replicas
    return (*([storage] if storage else []), *(name for name in overlay.extras if name not in by_disk))


def comments(overlay: Overlay) -> dict[str, tuple[str, ...]]:
    """Return the comment lines above each document, by file name."""
    prerequisites = (f"Before it is applied: {note}." for note in overlay.notes)
    warnings = (f"Warning: {warning}." for warning in overlay.warnings)
    capacity = [f"Capacity: {overlay.capacity}."] if overlay.capacity else []
    return {
        "kustomization.yaml": (overlay.command, *prerequisites, *warnings, *capacity),
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
    if overlay.profiles:
        document["configMapGenerator"] = [_profiles(overlay)]
    if is_group:
        return document
    if "autoscale" not in overlay.extras:
        document["replicas"] = [{"name": "dsv4", "count": overlay.replicas}]
    if overlay.image:
        name, digest = overlay.image
        document["images"] = [{"name": "dsv4-serve", "newName": name, "digest": digest}]
    return {**document, "patches": [{"path": name} for name in patches(overlay)]}


def patches(overlay: Overlay) -> tuple[str, ...]:
    """Return the names of the overlay's own files that are patches."""
    return ("replica.yaml", *(["disk.yaml"] if "node-disk" in overlay.extras else []))


def _profiles(overlay: Overlay) -> dict[str, Any]:
    files = [f"{profile_key(path)}=profiles/{profile_file(path)}" for path in overlay.profiles]
    generated: dict[str, Any] = {"name": "dsv4-profiles", "files": files}
    if overlay.nodes > 1:  # Kustomize does not know where a LeaderWorkerSet names it
        generated["options"] = {"disableNameSuffixHash": True}
    return generated


def profile_key(path: str) -> str:
    """Return the key of a profile file in its ConfigMap, whose keys have no slash."""
    return profile_file(path).replace("/", "__")


def profile_file(path: str) -> str:
    """Return where the folder has a profile file: Kustomize takes no equals sign, and a key no comma."""
    return re.sub(r"[^\w./-]", "-", path, flags=re.ASCII)


def _replica(overlay: Overlay) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "dsv4", "namespace": "dsv4"},
        "spec": {"template": {"spec": pod_patch(overlay)}},
    }


def _disk(overlay: Overlay) -> dict[str, Any]:
    """Return the patch of the DaemonSet that fills the nodes' disks."""
    # Each init container is named: Kustomize puts those of a patch before those that it does not name.
    init = [{"name": "folders"}, _reading(overlay, {"name": "fetch"}, {"WEIGHTS": overlay.fetched})]
    if pack := overlay.extras.get("kernels"):
        no_gpus = {"NVIDIA_VISIBLE_DEVICES": "void", "HARDWARE": overlay.hardware}
        init.append(_reading(overlay, _import(pack), {**overlay.env, **no_gpus}))
    models = {"name": "models", "hostPath": {**overlay.weights.volume["hostPath"], "type": "DirectoryOrCreate"}}
    pod = {**_place(overlay), "initContainers": init, "volumes": [models, *_profile_volumes(overlay)]}
    pod["nodeSelector"] = {"nvidia.com/gpu.present": None, **pod.get("nodeSelector", {})}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "dsv4-disk", "namespace": "dsv4"},
        "spec": {"template": {"spec": pod}},
    }


def _import(pack: str) -> dict[str, Any]:
    mounts = {"models": MOUNTED, "cache": "/var/cache/dsv4", "tmp": "/tmp"}  # noqa: S108  of a pod
    return {
        "name": "kernels",
        "image": "dsv4-serve@sha256:" + "0" * 64,
        "imagePullPolicy": "IfNotPresent",
        "args": ["kernels", "import", pack],
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
    }


def _reading(overlay: Overlay, container: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
    """Return a container of ours with variables, and with the operator's profile files if there are any."""
    if not overlay.profiles:
        return {**container, "env": _variables(env)}
    mount = {"name": "profiles", "mountPath": PROFILES, "readOnly": True}
    mounts = [*container.get("volumeMounts", []), mount]
    return {**container, "env": _variables({**env, "DSV4_PROFILES": PROFILES}), "volumeMounts": mounts}


def _profile_volumes(overlay: Overlay) -> list[dict[str, Any]]:
    items = [{"key": profile_key(path), "path": path} for path in overlay.profiles]
    return [{"name": "profiles", "configMap": {"name": "dsv4-profiles", "items": items}}] if items else []


def _place(overlay: Overlay) -> dict[str, Any]:
    """Return where a pod may run."""
    label = {"key": PRODUCT, "operator": "In", "values": list(overlay.products)}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [label]}]}
    place: dict[str, Any] = {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}
    if overlay.processor:
        place["nodeSelector"] = {"kubernetes.io/arch": _ARCHITECTURES[overlay.processor]}
    return place


def pod_patch(overlay: Overlay) -> dict[str, Any]:
    """Return what the overlay sets of a pod."""
    by_claim = "dra" in overlay.extras  # a ResourceClaim names GPUs and product
    limits: dict[str, Any] = {"memory": f"{overlay.memory_gib}Gi"} | (
        {} if by_claim else {"nvidia.com/gpu": overlay.gpus}
    )
    pod: dict[str, Any] = {"terminationGracePeriodSeconds": PRE_STOP + overlay.stop_seconds + SPARE}
    pod |= {name: value for name, value in _place(overlay).items() if not (by_claim and name == "affinity")}
    if overlay.fetched:
        names = ("wait",) if "node-disk" in overlay.extras else ("fetch", "verify")
        weights = {"WEIGHTS": overlay.fetched}
        pod["initContainers"] = [_reading(overlay, {"name": name}, weights) for name in names]
    resources = {"requests": {"cpu": str(overlay.cpus), **limits}, "limits": dict(limits)}
    pod["containers"] = [{**_reading(overlay, {"name": "replica"}, overlay.env), "resources": resources}]
    pod["volumes"] = [{"name": "models", **_BASE_VOLUME, **overlay.weights.volume}, *_profile_volumes(overlay)]
    if overlay.offloading:
        size = f"{shm_gib(overlay.offloading)}Gi"
        pod["volumes"].append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}})
    return pod


def _variables(env: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in env.items()]
