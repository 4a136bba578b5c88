"""The examples for Argo CD and Flux have the fields of their kinds, and the cells that the page makes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parents[3]
GITOPS = ROOT / "deploy/gitops"
PAGE = (ROOT / "docs/how-to/operate-a-fleet.md").read_text(encoding="utf-8")
OBJECTS = {
    f"{file.stem}: {one['kind']} {one['metadata']['name']}": one
    for file in sorted(GITOPS.glob("*.yaml"))
    for one in yaml.safe_load_all(file.read_text(encoding="utf-8"))
}
TEXT = {"type": "string", "minLength": 1}
FLAG = {"type": "boolean"}
DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}


def closed(required: str = "", **fields: Any) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {"type": "object", "additionalProperties": False, "properties": fields, "required": required.split()}


def several(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": item}


def kind(api: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = closed("name namespace", name=TEXT, namespace=TEXT)
    return closed(
        "apiVersion kind metadata spec", apiVersion={"const": api}, kind={"const": name}, metadata=metadata, spec=spec
    )


_SOURCE = closed("repoURL", repoURL=TEXT, targetRevision=TEXT, path=TEXT)
_IGNORED = closed("kind jsonPointers", group=TEXT, kind=TEXT, name=TEXT, jsonPointers=several(TEXT))
_SYNC = closed(
    automated=closed(prune=FLAG, selfHeal=FLAG),
    managedNamespaceMetadata=closed(labels={"type": "object", "additionalProperties": TEXT}),
    syncOptions=several(TEXT),
)
_APPLICATION = closed(
    "project source destination",
    project=TEXT,
    source=_SOURCE,
    destination=closed("server namespace", server=TEXT, namespace=TEXT),
    ignoreDifferences=several(_IGNORED),
    syncPolicy=_SYNC,
)
_GIT = closed("repoURL revision", repoURL=TEXT, revision=TEXT, directories=several(closed("path", path=TEXT)))
SCHEMAS = {
    "ApplicationSet": kind(
        "argoproj.io/v1alpha1",
        "ApplicationSet",
        closed(
            "generators template",
            goTemplate=FLAG,
            goTemplateOptions=several(TEXT),
            generators=several(closed("git", git=_GIT)),
            template=closed("metadata spec", metadata=closed("name", name=TEXT), spec=_APPLICATION),
        ),
    ),
    "GitRepository": kind(
        "source.toolkit.fluxcd.io/v1",
        "GitRepository",
        closed("interval url", interval=DURATION, url=TEXT, ref=closed(branch=TEXT)),
    ),
    "Kustomization": kind(
        "kustomize.toolkit.fluxcd.io/v1",
        "Kustomization",
        closed(
            "interval prune sourceRef",
            dependsOn=several(closed("name", name=TEXT)),
            interval=DURATION,
            sourceRef=closed("kind name", kind=TEXT, name=TEXT),
            path=TEXT,
            prune=FLAG,
            wait=FLAG,
            timeout=DURATION,
        ),
    ),
}
"""The fields that we use, written from the custom resource definitions of Argo CD 3 and Flux 2; any other is refused."""


def problems(one: dict[str, Any]) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMAS[one["kind"]]).iter_errors(one)]


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_has_the_fields_of_its_kind(name: str) -> None:
    assert problems(OBJECTS[name]) == []
    wrong = copy.deepcopy(OBJECTS[name])
    wrong["spec"]["misspelt"] = 1
    assert problems(wrong)


def test_argo_cd_puts_each_folder_into_the_namespace_that_the_page_gives_it() -> None:
    spec = OBJECTS["argocd: ApplicationSet dsv4"]["spec"]
    assert "--namespace dsv4-$cell" in PAGE
    assert "--out fleet/$cell" in PAGE
    assert spec["generators"][0]["git"]["directories"] == [{"path": "fleet/*"}]
    assert spec["template"]["spec"]["destination"]["namespace"] == "dsv4-{{ .path.basename }}"
    assert spec["template"]["spec"]["source"]["path"] == "{{ .path.path }}"


def test_flux_goes_from_cell_to_cell() -> None:
    cells = [one for name, one in OBJECTS.items() if "Kustomization" in name]
    names = [cell["metadata"]["name"] for cell in cells]
    assert len(names) > 1
    assert [cell["spec"].get("dependsOn") for cell in cells] == [None, *([{"name": name}] for name in names[:-1])]
    assert all(cell["spec"]["wait"] for cell in cells)
    assert [cell["spec"]["path"] for cell in cells] == [f"./fleet/{name.removeprefix('dsv4-')}" for name in names]
