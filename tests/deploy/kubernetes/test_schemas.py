"""
Every object has the fields that its kind has, and no others.

Kubernetes' own kinds are checked by `kubernetes-validate` (pip), which brings their schemas for each release; kinds of others by
the schemas beside this file; what checkov (pip) asks for is met or skipped with a reason.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.deploy.kubernetes.rendered import KUBERNETES, OVERLAYS, one, overlay, templates
from tests.support.program import need

SCHEMAS = {file.stem: json.loads(file.read_text()) for file in (Path(__file__).parent / "schemas").glob("*.json")}
NEWEST, OLDEST = "1.37", "1.34"
"""Releases of Kubernetes; preStop's `sleep` and ResourceClaims v1 are what the oldest is for. Image volumes want 1.35."""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each overlay in one file; of kinds that are not Kubernetes' own, the pods that they hold."""
    need("kubectl", "KUBECTL")
    folder = tmp_path_factory.mktemp("rendered")
    for name in OVERLAYS:
        manifests = overlay(name)
        own = [manifest for manifest in manifests if manifest["kind"] not in SCHEMAS]
        foreign = [manifest for manifest in manifests if manifest["kind"] in SCHEMAS]
        for owner, template in templates(foreign):
            metadata = template["metadata"] | {"name": owner.lower().replace(" ", "-"), "namespace": "dsv4"}
            own.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
        (folder / f"{name}.yaml").write_text(yaml.dump_all(own, Dumper=yaml.CSafeDumper))
    return folder


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("release", [OLDEST, NEWEST])
def test_kubernetes_knows_every_field(rendered: Path, release: str) -> None:
    argv = [need("kubernetes-validate", "KUBERNETES_VALIDATE"), "--strict", "--kubernetes-version", release]
    files = sorted(rendered.glob("*.yaml"))
    assert len(files) == len(OVERLAYS)
    done = subprocess.run([*argv, *files], capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "WARN" not in output, output
    objects = [found for file in files for found in yaml.load_all(file.read_text(), yaml.CSafeLoader)]
    deployments = [found["metadata"]["name"] for found in objects if found["kind"] == "Deployment"]
    assert len(deployments) > len(OVERLAYS)
    assert sorted(re.findall(r"passed for resource deployment/(\S+) ", output)) == sorted(deployments)


def test_kubernetes_refuses_a_field_that_is_misspelt(tmp_path: Path) -> None:
    argv = [need("kubernetes-validate", "KUBERNETES_VALIDATE"), "--strict"]
    need("kubectl", "KUBECTL")
    text = yaml.safe_dump(one(overlay("h200"), "Deployment"))
    (tmp_path / "wrong.yaml").write_text(text.replace("terminationGracePeriodSeconds", "terminationGraceSeconds"))
    done = subprocess.run([*argv, tmp_path / "wrong.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "terminationGraceSeconds" in done.stdout + done.stderr


@pytest.mark.parametrize("name", OVERLAYS)
def test_kinds_of_others_have_the_fields_that_they_know(name: str) -> None:
    for manifest in overlay(name):
        group = manifest["apiVersion"].partition("/")[0]
        if manifest["kind"] in SCHEMAS:
            assert problems(manifest) == []
        else:
            assert "." not in group or group.endswith(".k8s.io"), f"{manifest['kind']} has no schema here"


def problems(manifest: dict[str, Any]) -> list[str]:
    validator = Draft202012Validator(SCHEMAS[manifest["kind"]])
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


def test_every_schema_is_one_is_used_and_refuses_what_it_does_not_know() -> None:
    manifests = {m["kind"]: m for name in OVERLAYS for m in overlay(name)}
    for kind, schema in SCHEMAS.items():
        Draft202012Validator.check_schema(schema)
        wrong = copy.deepcopy(manifests[kind])
        wrong["spec"]["misspelt"] = 1
        assert problems(wrong)


def test_checkov_finds_nothing_that_is_not_skipped_with_a_reason(request: pytest.FixtureRequest) -> None:
    program, rendered = need("checkov", "CHECKOV"), request.getfixturevalue("rendered")
    argv = [program, "--config-file", KUBERNETES / ".checkov.yaml", "-d", rendered, "-o", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    failed = report["results"]["failed_checks"]
    assert [(check["check_id"], check["resource"], check["file_path"]) for check in failed] == []
    assert report["summary"]["passed"] > 1000
    assert all(check["check_result"]["suppress_comment"] for check in report["results"]["skipped_checks"])
    assert done.returncode == 0


def test_every_skip_of_checkov_has_its_reason() -> None:
    lines = [line for line in (KUBERNETES / ".checkov.yaml").read_text().splitlines() if "- CKV" in line]
    assert lines
    assert all(len(line.partition("#")[2]) > 20 for line in lines)
