"""What is made from other files is what these say now, and the page's figures are the manifests'."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import yaml

from dsv4_serve.entrypoint.vllm_log.exit_cause import CAUSES
from tests.deploy.kubernetes.rendered import BASE, KUBERNETES, OVERLAYS, ROOT, container, kustomize, one, replicas
from tests.support.balancer import Names, balancer
from tests.support.patience import until
from tests.support.program import need
from tools import kubernetes as tool

PAGE = tool.PAGE.read_text(encoding="utf-8")


NAME = "dsv4-replicas.dsv4.svc.cluster.local"
LABELS = b"".join(bytes([len(part)]) + part.encode() for part in NAME.split("."))


class Cluster(Names):
    """As Names, for a headless Service."""

    def _answer(self, query: bytes) -> bytes:
        return super()._answer(query.replace(LABELS, b"\x07replica")).replace(b"\x07replica", LABELS, 1)


def test_the_operator_s_rules_are_prometheus_rules() -> None:
    assert tool.RULES.read_text() == tool.rules(tool.ALERTS.read_text()), "python -m tools.kubernetes rules"
    assert yaml.safe_load(tool.RULES.read_text())["spec"] == yaml.safe_load(tool.ALERTS.read_text())


def test_the_capacity_table_is_what_dsv4_fit_counts() -> None:
    assert tool.page(PAGE) == PAGE, "python -m tools.kubernetes capacity"
    assert "| 2 × h200 |" in PAGE


def test_the_page_names_every_overlay_and_component_and_every_exit_status() -> None:
    names = [*OVERLAYS, *(folder.name for folder in (KUBERNETES / "components").iterdir())]
    assert [name for name in names if f"`{name}`" not in PAGE] == []
    section = PAGE.partition("## What an exit status means here")[2].partition("##")[0]
    rows = {int(status) for row in re.findall(r"^\| ([\d, ]+) \|", section, re.MULTILINE) for status in row.split(",")}
    assert {cause.exit_status for cause in CAUSES} <= rows


def test_the_page_s_own_overlay_renders(tmp_path: Path) -> None:
    text = PAGE.partition("# mine/kustomization.yaml\n")[2].partition("```")[0]
    here = os.path.relpath(ROOT, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(text.replace("../deploy", f"{here}/deploy").replace("…", "1" * 64))
    manifests = kustomize(tmp_path)
    (replica,) = replicas(manifests)
    assert container(replica)["image"] == "registry.example.com/dsv4-serve@sha256:" + "1" * 64
    assert {"Deployment", "ServiceMonitor", "ConfigMap"} <= {manifest["kind"] for manifest in manifests}


def test_the_page_adds_up_the_time_of_a_stop_as_the_manifest_does() -> None:
    section = PAGE.partition("## How long things take")[2].partition("\n\nThe first")[0]
    *steps, whole = [int(seconds) for seconds in re.findall(r"\| \**(\d+)\** \|", section)]
    pod = one(BASE, "Deployment")["spec"]["template"]["spec"]
    assert sum(steps) == whole == pod["terminationGracePeriodSeconds"]
    assert steps[0] == container(pod)["lifecycle"]["preStop"]["sleep"]["seconds"]


def test_haproxy_finds_replicas_by_the_name_that_kubernetes_gives_them(tmp_path: Path) -> None:
    binary = need("haproxy", "HAPROXY")

    names = Cluster()
    names.running = ["127.0.0.7"]
    with balancer(tmp_path, names, binary=binary, REPLICA_NAME=NAME, REPLICA_PLACES="3") as running:
        assert until(lambda: "127.0.0.7" in running.tell("show servers state replicas"), 5)
        assert len(re.findall(r" replica\d ", running.tell("show servers state replicas"))) == 3


def test_haproxy_takes_a_name_for_its_nameserver(tmp_path: Path) -> None:
    binary = need("haproxy", "HAPROXY")
    (tmp_path / "key").write_text("a-key\n")
    env = {"API_KEY_FILE": str(tmp_path / "key"), "REPLICA_DNS": "localhost:53", "BALANCER_SOCKET": str(tmp_path / "s")}
    argv = [binary, "-c", "-f", ROOT / "deploy/haproxy/haproxy.cfg"]
    assert subprocess.run(argv, env=env, capture_output=True, check=False).returncode == 0
