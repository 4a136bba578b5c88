"""A replica of several nodes is a LeaderWorkerSet group of the base's pod."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.kubernetes import write
from dsv4_serve.entrypoint.kubernetes.overlay import Overlay

GB10 = ("--profile", "524k", "--hardware", "gb10")
IMAGE = f"registry.example.com/dsv4@sha256:{'a' * 64}"
Made = Callable[..., dict[str, Any]]


@pytest.fixture
def made(overlay_for: Callable[..., Overlay], rendered: Callable[[Path], dict[str, Any]], tmp_path: Path) -> Made:
    """The objects of an overlay, as they are applied."""

    def make(*argv: str) -> dict[str, Any]:
        write.folder(overlay_for(*argv), tmp_path / "out")
        return rendered(tmp_path / "out")

    return make


def pods(objects: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The group, and its leader's and follower's pod."""
    group = objects["LeaderWorkerSet/dsv4"]["spec"]
    template = group["leaderWorkerTemplate"]
    return group, [template[role]["spec"] for role in ("leaderTemplate", "workerTemplate")]


def test_two_gb10_are_two_nodes_of_one_gpu_each(made: Made) -> None:
    objects = made(*GB10, "--replicas", "3", "--image", IMAGE)
    group, both = pods(objects)
    assert "Deployment/dsv4" not in objects
    assert (group["replicas"], group["leaderWorkerTemplate"]["size"]) == (3, 2)
    for pod in both:
        (container,) = pod["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert container["image"] == IMAGE
        assert pod["nodeSelector"] == {"kubernetes.io/arch": "arm64"}
        assert {"name": "TP", "value": "2"} in container["env"]
    leader, follower = (pod["containers"][0] for pod in both)
    assert leader["args"][1:] == follower["args"][2:]
    assert [*leader["args"][:1], "--headless"] == follower["args"][:2]
    assert [port["name"] for port in follower["ports"]] == ["health"]


def test_only_leaders_answer_and_the_pods_of_a_group_may_connect(made: Made) -> None:
    objects = made(*GB10)
    template = objects["LeaderWorkerSet/dsv4"]["spec"]["leaderWorkerTemplate"]
    labels = [template[role]["metadata"]["labels"] for role in ("leaderTemplate", "workerTemplate")]
    for name in ("dsv4", "dsv4-replicas"):
        needed = objects[f"Service/{name}"]["spec"]["selector"].items()
        assert [needed <= own.items() for own in labels] == [True, False]
    selector = objects["NetworkPolicy/dsv4-group"]["spec"]["podSelector"]
    assert all(selector["matchLabels"].items() <= own.items() and "dsv4-serve/group" in own for own in labels)


def test_nodes_of_many_gpus_share_a_replica_by_request(made: Made) -> None:
    argv = ("--profile", "pro", "--hardware", "h200", "--tp", "16", "--nodes", "2", "--weights", "hostpath:/models")
    group, both = pods(made(*argv))
    assert group["leaderWorkerTemplate"]["size"] == 2
    for pod in both:
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 8
        sources = {volume["name"]: volume for volume in pod["volumes"]}
        assert sources["models"] == {"name": "models", "hostPath": {"path": "/models", "type": "Directory"}}
        assert "hostPath" in sources["cache"]
        assert len(sources) == len(pod["volumes"])
        assert "nodeSelector" not in pod


def test_what_the_nodes_need_is_said(overlay_for: Callable[..., Overlay]) -> None:
    notes = " ".join(overlay_for(*GB10).notes)
    assert "build an image for aarch64 with vLLM 0.32.0" in notes
    assert "a group of 2 pods, one a node, with 1 GPU each: install LeaderWorkerSet" in notes
    assert "aarch64" in " ".join(overlay_for("--profile", "64k", "--hardware", "gh200").notes)
    assert "aarch64" not in " ".join(overlay_for("--profile", "64k", "--hardware", "h200").notes)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--weights", "fetch"), "--weights fetch is for replicas of one node, and this one has 2"),
        (("--nodes", "3"), "3 nodes cannot share 2 GPUs evenly"),
        (("--nodes", "1"), "a host of gb10 has 1 GPU, and 2 are needed on each; use --nodes 2"),
    ],
)
def test_a_group_that_cannot_be_is_refused(
    overlay_for: Callable[..., Overlay], argv: tuple[str, ...], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        overlay_for(*GB10, *argv)
