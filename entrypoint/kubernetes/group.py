"""Build the LeaderWorkerSet of a replica that spans several nodes, from the base's pod and an overlay. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from .overlay import Overlay, pod_patch

_PLACE = ("--nnodes=$(LWS_GROUP_SIZE)", "--node-rank=$(LWS_WORKER_INDEX)", "--master-addr=$(LWS_LEADER_ADDRESS)")
"""What LeaderWorkerSet tells each pod, as vLLM's flags."""
_CACHE = {"name": "cache", "hostPath": {"path": "/var/lib/dsv4/cache", "type": "Directory"}}
"""As the component `host-path` has it."""


def document(overlay: Overlay, deployment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the group; `deployment` is the base's, whose pod it has on every node."""
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    pod = _pod(overlay, deployment["spec"]["template"]["spec"])
    leader, follower = copy.deepcopy(pod), pod
    _serve(leader, "serve", *_PLACE)
    _serve(follower, "serve", "--headless", *_PLACE)
    ports = follower["containers"][0]["ports"]
    follower["containers"][0]["ports"] = [port for port in ports if port["name"] != "api"]
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": "dsv4", "namespace": "dsv4", "labels": labels},
        "spec": {
            "replicas": overlay.replicas,
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {"maxSurge": 0, "maxUnavailable": 1},
            },
            "leaderWorkerTemplate": {
                "size": overlay.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": _template("leader", labels, leader),
                "workerTemplate": _template("follower", labels, follower),
            },
        },
    }


def _template(role: str, labels: Mapping[str, str], pod: dict[str, Any]) -> dict[str, Any]:
    own = {"dsv4-serve/group": "dsv4", "dsv4-serve/role": role}
    return {"metadata": {"labels": {**labels, **own}}, "spec": pod}


def _serve(pod: dict[str, Any], *argv: str) -> None:
    pod["containers"][0] |= {"command": ["tini", "--", "dsv4"], "args": list(argv)}


def _pod(overlay: Overlay, base: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base's pod with what the overlay sets."""
    pod, patch = copy.deepcopy(dict(base)), pod_patch(overlay)
    (container,), (own,) = pod["containers"], patch["containers"]
    env = {one["name"]: one for one in (*container["env"], *own["env"])}
    container |= {"env": list(env.values()), "resources": _resources(container["resources"], own["resources"])}
    if overlay.image:
        container["image"] = "@".join(overlay.image)
    models = {"name": "models", **overlay.weights.volume}
    others = [_CACHE] if overlay.weights.component == "host-path" else []
    others += [volume for volume in patch["volumes"] if volume["name"] != "models"]
    container["volumeMounts"] = [*container["volumeMounts"], *own.get("volumeMounts", [])]
    replaced = {"models", *(volume["name"] for volume in others)}
    pod["volumes"] = [models, *others, *(volume for volume in pod["volumes"] if volume["name"] not in replaced)]
    rest = {key: value for key, value in patch.items() if key not in ("containers", "volumes")}
    spread = "topologySpreadConstraints"  # a group's own pods are placed by their GPUs
    return {key: value for key, value in (pod | rest).items() if key != spread}


def _resources(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    return {kind: {**base.get(kind, {}), **own[kind]} for kind in own}
