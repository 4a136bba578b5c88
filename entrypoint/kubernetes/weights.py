"""Read `--weights`: the source of the weights, with the component and the volume that it needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError

MOUNTED = "/models"
"""The mount of the volume in a pod; it has one folder for each model."""
CLAIM = "dsv4-models"
DIGEST = re.compile(r"(?P<name>[\w./:-]+)@(?P<digest>sha256:[0-9a-f]{64})")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""RFC 1123's label, for namespaces and claims."""
_KINDS = "pvc:CLAIM, hostpath:/FOLDER, image:REF@sha256:… or fetch"


@dataclass(frozen=True)
class WeightSource:
    """`volume` is the source of the volume `models`, `component` the folder of components/ below it, if any."""

    volume: Mapping[str, Any]
    component: str = ""
    note: str = ""
    """What is needed before it is applied."""


def read(text: str) -> WeightSource:
    """Return the source that `--weights` names; raise ConfigError for anything else."""
    kind, _, what = text.partition(":")
    if text == "fetch":
        note = f"claim {CLAIM} must be writable from every node with a replica (ReadWriteMany)"
        return WeightSource({"persistentVolumeClaim": {"claimName": CLAIM, "readOnly": False}}, "fetch", note)
    if kind == "pvc":
        if not NAME.fullmatch(what):
            raise ConfigError(
                f"--weights {text}: {what!r} is not the name of a claim; use lower-case letters, digits and hyphens."
            )
        note = f"claim {what} must hold the weights"
        return WeightSource({"persistentVolumeClaim": {"claimName": what, "readOnly": True}}, "", note)
    if kind == "hostpath":
        if not re.fullmatch(r"/[\w.-][\w./-]*", what) or ".." in what.split("/"):
            raise ConfigError(
                f"--weights {text}: must be the absolute path of a folder on the nodes, as in hostpath:/models."
            )
        note = (
            f"each node must have the folders {what} and /var/lib/dsv4/cache (owner 2000:0), and the namespace must"
            " allow hostPath"
        )
        return WeightSource({"hostPath": {"path": what, "type": "Directory"}}, "host-path", note)
    if kind == "image":
        digest(what, f"--weights {text}")
        note = "Kubernetes must be 1.35 or newer; older versions start the pod without weights"
        return WeightSource({"image": {"reference": what, "pullPolicy": "IfNotPresent"}}, "image-volume", note)
    raise ConfigError(f"--weights {text}: must be {_KINDS}.")


def digest(reference: str, origin: str) -> tuple[str, str]:
    """Return name and digest of an image; raise ConfigError without a digest."""
    match = DIGEST.fullmatch(reference)
    if not match:
        raise ConfigError(
            f"{origin}: must end in @sha256: and 64 hexadecimal digits. A tag can move, and then two replicas of one"
            " fleet serve different builds; the registry, or `docker image inspect`, shows the digest."
        )
    return match["name"], match["digest"]
