"""What an overlay changes in its copies of the components, as text by file. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from .. import replica
from .overlay import Overlay

CELL = 64
"""Replicas that one balancer finds (REPLICA_PLACES), and the largest fleet that was measured."""
Edits = Mapping[str, Mapping[str, str]]
"""For each file below components/, texts that it has and what replaces each."""
_HOST = "dsv4.example.com"
_INGRESS_CLASS = "# ingressClassName: nginx # the cluster's default class, unless you name one"
_GATEWAY_CLASS = "gatewayClassName: istio # patch it to yours"
_MIRROR = '# - {name: HF_ENDPOINT, value: "https://hub-mirror.example.com"} # for many nodes'
_PACK = "oci://registry.example/dsv4-kernels@sha256:" + "0" * 64


def edits(overlay: Overlay) -> dict[str, Mapping[str, str]]:
    """Return the edits of all components that the overlay includes."""
    return {file: texts for name, value in overlay.extras.items() for file, texts in _OF[name](overlay, value).items()}


def most_replicas(overlay: Overlay) -> int:
    """Return how many replicas the fleet may have; `autoscale` without a value doubles them, up to a cell."""
    if "autoscale" not in overlay.extras:
        return overlay.replicas
    return int(overlay.extras["autoscale"] or max(overlay.replicas, min(2 * overlay.replicas, CELL)))


def balancer_share(overlay: Overlay) -> int:
    """Return how many requests a balancer gives to one replica at once; 0 if the balancer's default applies."""
    return replica.WAITING * overlay.sequences


def _haproxy(overlay: Overlay, _: str) -> Edits:
    places = '- {name: REPLICA_PLACES, value: "64"}'
    if not (share := balancer_share(overlay)):
        return {}
    return {"haproxy/deployment.yaml": {places: f'{places}\n            - {{name: REPLICA_MAXCONN, value: "{share}"}}'}}


def _ingress(_: Overlay, place: str) -> Edits:
    name, _slash, host = place.rpartition("/")
    named = {_INGRESS_CLASS: f"ingressClassName: {name}"} if name else {}
    return {"ingress/ingress.yaml": {_HOST: host, **named}}


def _gateway(_: Overlay, place: str) -> Edits:
    name, _slash, host = place.rpartition("/")
    named = {_GATEWAY_CLASS: f"gatewayClassName: {name}"} if name else {}
    return {"gateway/gateway.yaml": {_HOST: host, **named}, "gateway/routes.yaml": {_HOST: host}}


def _node_disk(_: Overlay, mirror: str) -> Edits:
    if not mirror:
        return {}
    address = urlsplit(mirror)
    port = address.port or (443 if address.scheme == "https" else 80)
    return {
        "node-disk/daemonset.yaml": {_MIRROR: f'- {{name: HF_ENDPOINT, value: "{mirror}"}}'},
        "node-disk/network.yaml": {
            "{port: 443, protocol: TCP}": "{port: 443, protocol: TCP}"
            + f", {{port: {port}, protocol: TCP}}" * (port != 443)
        },
    }


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
    "ingress": _ingress,
    "gateway": _gateway,
    "monitoring": _monitoring,
    "autoscale": _autoscale,
    "dra": _dra,
    "kernels": _kernels,
    "node-disk": _node_disk,
    "priority": _priority,
}
