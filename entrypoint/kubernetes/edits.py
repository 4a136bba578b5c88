"""What an overlay changes in its copies of the components, as text by file. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .. import replica
from .overlay import Overlay

Edits = Mapping[str, Mapping[str, str]]
"""For each file below components/, texts that it has and what replaces each."""
_HOST = "dsv4.example.com"
_PACK = "oci://registry.example/dsv4-kernels@sha256:" + "0" * 64


def edits(overlay: Overlay) -> dict[str, Mapping[str, str]]:
    """Return the edits of all components that the overlay includes."""
    return {file: texts for name, value in overlay.extras.items() for file, texts in _OF[name](overlay, value).items()}


def most_replicas(overlay: Overlay) -> int:
    """Return how many replicas the fleet may have; `autoscale` at most doubles them, unless its value says more."""
    if "autoscale" not in overlay.extras:
        return overlay.replicas
    return int(overlay.extras["autoscale"] or 2 * overlay.replicas)


def balancer_share(overlay: Overlay) -> int:
    """Return how many requests a balancer gives to one replica at once; 0 if the balancer's default applies."""
    return replica.WAITING * overlay.sequences


def _haproxy(overlay: Overlay, _: str) -> Edits:
    places = '- {name: REPLICA_PLACES, value: "64"}'
    if not (share := balancer_share(overlay)):
        return {}
    return {"haproxy/deployment.yaml": {places: f'{places}\n            - {{name: REPLICA_MAXCONN, value: "{share}"}}'}}


def _public(file: str) -> Callable[[Overlay, str], Edits]:
    return lambda _, host: {path: {_HOST: host} for path in file.split()}


def _monitoring(_: Overlay, url: str) -> Edits:
    link = "runbook_url: "
    return {"monitoring/rules.yaml": {f"{link}docs/": f"{link}{url.rstrip('/')}/docs/"}} if url else {}


def _autoscale(overlay: Overlay, _: str) -> Edits:
    least, most = overlay.replicas, most_replicas(overlay)
    return {
        "autoscale/scaledobject.yaml": {
            "minReplicaCount: 2": f"minReplicaCount: {least}",
            "maxReplicaCount: 4": f"maxReplicaCount: {most}",
            "replicas: 2,": f"replicas: {least},",
            'namespace="dsv4"': f'namespace="{overlay.namespace}"',
        }
    }


def _dra(overlay: Overlay, _: str) -> Edits:
    names = ", ".join(f'"{device}"' for device in overlay.devices)
    return {"dra/claim.yaml": {"count: 2": f"count: {overlay.gpus}", '== "NVIDIA H200"': f"in [{names}]"}}


def _kernels(overlay: Overlay, pack: str) -> Edits:
    return {} if "node-disk" in overlay.extras else {"kernels/replica.yaml": {_PACK: pack}}


def _priority(_: Overlay, name: str) -> Edits:
    if not name:
        return {}
    return {"priority/kustomization.yaml": {"resources:\n  - class.yaml\n": "", "value: dsv4}": f"value: {name}}}"}}


def _none(_: Overlay, __: str) -> Edits:
    return {}


_OF: Mapping[str, Callable[[Overlay, str], Edits]] = {
    "haproxy": _haproxy,
    "router": _none,
    "gateway-inference": _none,
    "ingress": _public("ingress/ingress.yaml"),
    "gateway": _public("gateway/gateway.yaml gateway/routes.yaml"),
    "monitoring": _monitoring,
    "autoscale": _autoscale,
    "dra": _dra,
    "kernels": _kernels,
    "node-disk": _none,
    "priority": _priority,
}
