"""The components that `dsv4 manifests --with` adds, by name: what each needs, and what it excludes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import ConfigError, nearest
from .weights import DIGEST, NAME

WAY_IN = ("haproxy", "router", "gateway-inference")
_BY_OPTION = {
    "host-path": "--weights hostpath:/FOLDER",
    "image-volume": "--weights image:REF@sha256:…",
    "fetch": "--weights fetch",
    "several-nodes": "--nodes N",
}
"""Components that another option adds."""
_OF_A_ROLLOUT = ("candidate", "canary")
"""Components of overlays that are applied next to a fleet, while it gets a new image."""
_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_HOST = re.compile(rf"({_LABEL}/)?(\*\.)?{_LABEL}(\.{_LABEL})+")
"""A class and a host, or a host alone."""
_COUNT = re.compile(r"[1-9][0-9]{0,4}")
_PACK = re.compile(r"oci://" + DIGEST.pattern)
_LINK = re.compile(r"https?://[\w.-]+(:[0-9]+)?(/[^\s\"'#{}]*)?")


@dataclass(frozen=True)
class Component:
    """`value` is what may follow `=`, as users see it, and `form` its form; `needs` names what must come with it."""

    value: str = ""
    form: re.Pattern[str] = re.compile("")
    requires_value: bool = False
    needs: tuple[str, ...] = ()
    one_node: bool = False
    """Whether it is for replicas of one node only."""
    note: str = ""
    """What is needed before it is applied."""


_TLS = "the Secret dsv4-tls must hold the certificate and its key, as `kubectl create secret tls` makes it"

COMPONENTS: Mapping[str, Component] = {
    "haproxy": Component(),
    "router": Component(note="name your image of vllm-router in kustomization.yaml (images)"),
    "gateway-inference": Component(
        one_node=True,
        note="name your image of llm-d's endpoint picker in kustomization.yaml (images), and install the Gateway API"
        " with its inference extension",
    ),
    "ingress": Component("[CLASS/]HOST", _HOST, requires_value=True, needs=("haproxy",), note=_TLS),
    "gateway": Component("[CLASS/]HOST", _HOST, requires_value=True, needs=("haproxy",), note=_TLS),
    "monitoring": Component(
        "URL", _LINK, note="install the Prometheus operator; its Prometheus runs in the namespace `monitoring`"
    ),
    "autoscale": Component(
        "MAX", _COUNT, one_node=True, note="install KEDA; it reads the metrics of vLLM from Prometheus"
    ),
    "dra": Component(one_node=True, note="install NVIDIA's DRA driver; Kubernetes must be 1.34 or newer"),
    "kernels": Component("oci://REF@sha256:…", _PACK, requires_value=True, one_node=True),
    "node-disk": Component(
        "URL",
        _LINK,
        one_node=True,
        note="`kubectl rollout status daemonset/dsv4-disk` reports how many nodes are filled; each fetches the weights"
        " itself, so name a mirror of the Hub (node-disk=URL) if they are many",
    ),
    "priority": Component("CLASS", NAME, note="the PriorityClass is the cluster's: let only one fleet bring it"),
}
"""In the order in which they are written; `--with` takes them in any order."""


def read(texts: Iterable[str]) -> dict[str, str]:
    """Return the value of each component that `--with` names, "" for none; raise ConfigError for what cannot be."""
    found: dict[str, str] = {}
    for word in (word.strip() for text in texts for word in text.split(",")):
        name, _, value = word.partition("=")
        _require_known(name)
        _require_value(name, value)
        if found.setdefault(name, value) != value:
            raise ConfigError(f"--with {word}: {name} is named twice, with different values; name it once.")
    chosen = {name: found[name] for name in COMPONENTS if name in found}
    _require_agreement(chosen)
    return chosen


def _require_known(name: str) -> None:
    if name in _BY_OPTION:
        raise ConfigError(f"--with {name}: another option adds this component; use {_BY_OPTION[name]}.")
    if name in _OF_A_ROLLOUT:
        raise ConfigError(
            f"--with {name}: it belongs to the rollout of a new image, not to the fleet; apply the overlay {name} of"
            " deploy/kubernetes/overlays (docs/how-to/canary.md)."
        )
    if name not in COMPONENTS:
        hint = nearest(name, COMPONENTS)
        raise ConfigError(f"--with {name}: there is no such component{hint}. Known: {', '.join(COMPONENTS)}.")


def _require_value(name: str, value: str) -> None:
    component = COMPONENTS[name]
    if value and not component.value:
        raise ConfigError(f"--with {name}={value}: {name} takes no value; use --with {name}.")
    if (value or component.requires_value) and not component.form.fullmatch(value):
        raise ConfigError(f"--with {name}{value and f'={value}'}: must be {name}={component.value}.")


def _require_agreement(chosen: Mapping[str, str]) -> None:
    ways = [name for name in WAY_IN if name in chosen]
    if len(ways) > 1:
        raise ConfigError(f"--with {','.join(ways)}: one fleet has one way in; use one of {', '.join(WAY_IN)}.")
    for name in chosen:
        for needed in COMPONENTS[name].needs:
            if needed not in chosen:
                raise ConfigError(
                    f"--with {name}: it needs {needed}, which checks the key and closes routes;"
                    f" use --with {needed},{name}={chosen[name]}."
                )


def require_fit(chosen: Mapping[str, str], nodes: int, storage: str) -> None:
    """Raise ConfigError for components that do not fit replicas of `nodes` nodes, or weights from `storage`."""
    for name in chosen:
        if COMPONENTS[name].one_node and nodes > 1:
            raise ConfigError(f"--with {name}: it is for replicas of one node, and this one has {nodes}; leave it out.")
    if "node-disk" in chosen and storage != "host-path":
        raise ConfigError(
            "--with node-disk: it fills a folder of every node; use --weights hostpath:/FOLDER, such as"
            " hostpath:/var/lib/dsv4/models."
        )
