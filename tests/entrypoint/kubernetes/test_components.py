"""`dsv4 manifests --with`: what is added, in any order, and what is refused."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.kubernetes import components, edits, write
from dsv4_serve.entrypoint.kubernetes.overlay import Overlay

H200 = ("--profile", "524k", "--hardware", "h200")
DISK = ("--weights", "hostpath:/srv/models")
PACK = f"oci://r.example.com/kernels@sha256:{'a' * 64}"
IMAGE = f"registry.example.com/dsv4@sha256:{'b' * 64}"
NEAR = "https://git.example.com/dsv4-serve/"
ALL = (
    "haproxy",
    "ingress=llm.example.com",
    f"monitoring={NEAR}",
    "autoscale=8",
    f"kernels={PACK}",
    "node-disk",
    "priority",
)
Made = Callable[..., dict[str, Any]]


@pytest.fixture
def made(overlay_for: Callable[..., Overlay], rendered: Callable[[Path], dict[str, Any]], tmp_path: Path) -> Made:
    """The objects of an overlay, as they are applied."""

    def make(*argv: str) -> dict[str, Any]:
        write.folder(overlay_for(*H200, *argv), tmp_path / "out")
        return rendered(tmp_path / "out")

    return make


def pod(owner: dict[str, Any]) -> dict[str, Any]:
    return owner["spec"]["template"]["spec"]


def env(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in container["env"]}


def test_every_shipped_component_is_one_of_with_or_named_with_the_option_that_adds_it() -> None:
    shipped = {folder.name for folder in (write.SHIPPED / "components").iterdir()}
    assert shipped == set(components.COMPONENTS) | set(components._BY_OPTION) | set(components._OF_A_ROLLOUT)
    assert set(edits._OF) == set(components.COMPONENTS)


def test_any_order_gives_the_same_files(overlay_for: Callable[..., Overlay]) -> None:
    names = ("haproxy", "monitoring", "autoscale")
    texts = [write.files(overlay_for(*H200, "--with", ",".join(order))) for order in itertools.permutations(names)]
    assert texts == [texts[0]] * 6
    twice = [word for name in reversed(names) for word in ("--with", name)]
    assert write.files(overlay_for(*H200, *twice)) == texts[0]


def test_all_of_it_together(made: Made) -> None:
    objects = made(*DISK, "--replicas", "4", "--namespace", "llm", "--image", IMAGE, "--with", ",".join(ALL))
    assert objects["Ingress/dsv4"]["spec"]["rules"][0]["host"] == "llm.example.com"
    assert objects["Ingress/dsv4"]["spec"]["tls"][0]["hosts"] == ["llm.example.com"]
    scaled = objects["ScaledObject/dsv4"]["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"], scaled["fallback"]["replicas"]) == (4, 8, 4)
    assert all('{namespace="llm"}' in trigger["metadata"]["query"] for trigger in scaled["triggers"])
    assert "replicas" not in objects["Deployment/dsv4"]["spec"]
    rules = [rule for group in objects["PrometheusRule/dsv4"]["spec"]["groups"] for rule in group["rules"]]
    links = [rule["annotations"]["runbook_url"] for rule in rules if "alert" in rule]
    assert links
    assert all(link.startswith("https://git.example.com/dsv4-serve/docs/how-to/runbooks.md#") for link in links)
    (haproxy,) = pod(objects["Deployment/dsv4-haproxy"])["containers"]
    assert env(haproxy)["REPLICA_MAXCONN"] == "4"  # two for each of the two that a step computes
    for name in ("dsv4", "dsv4-haproxy"):
        assert pod(objects[f"Deployment/{name}"])["priorityClassName"] == "dsv4"


def test_the_disk_has_what_the_replicas_serve_and_they_wait_for_it(made: Made) -> None:
    objects = made(*DISK, "--image", IMAGE, "--with", f"node-disk,kernels={PACK}")
    replica, disk = (pod(objects[name]) for name in ("Deployment/dsv4", "DaemonSet/dsv4-disk"))
    assert [one["name"] for one in disk["initContainers"]] == ["folders", "fetch", "kernels"]
    _, fetch, kernels = disk["initContainers"]
    (wait,) = replica["initContainers"]
    assert env(fetch)["WEIGHTS"] == env(wait)["WEIGHTS"] == "w4a16"
    assert kernels["args"] == ["kernels", "import", PACK]
    named = {"PROFILE": "524k", "MODEL": "w4a16=/models/w4a16", "TP": "2", "HARDWARE": "h200"}
    assert env(kernels) == named | {"NVIDIA_VISIBLE_DEVICES": "void"}
    for one in (*disk["initContainers"], *disk["containers"], wait):
        assert env(one)["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert "DSV4_KERNELS" not in env(replica["containers"][0])
    assert "NetworkPolicy/dsv4-kernels" not in objects
    assert disk["affinity"] == replica["affinity"]
    assert not disk["nodeSelector"]  # not every node with GPUs
    for one in (replica, disk):
        paths = {volume["name"]: volume["hostPath"]["path"] for volume in one["volumes"] if "hostPath" in volume}
        assert paths == {"models": "/srv/models", "cache": "/var/lib/dsv4/cache"}
    images = {one["image"] for one in (*disk["initContainers"], *disk["containers"], wait)}
    assert images == {IMAGE}


def test_a_claim_of_gpus_names_their_number_and_every_name_of_the_product(
    overlay_for: Callable[..., Overlay], rendered: Callable[[Path], dict[str, Any]], tmp_path: Path
) -> None:
    argv = ("--profile", "524k", "--hardware", "rtx-pro-6000-max-q", "--tp", "4")
    write.folder(overlay_for(*argv, "--with", "dra"), tmp_path / "out")
    objects = rendered(tmp_path / "out")
    exactly = objects["ResourceClaimTemplate/dsv4-gpus"]["spec"]["spec"]["devices"]["requests"][0]["exactly"]
    assert exactly["count"] == 4
    product = "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"
    assert exactly["selectors"][0]["cel"]["expression"].endswith(f'productName in ["{product}"]')
    one = pod(objects["Deployment/dsv4"])
    assert "affinity" not in one
    assert "nvidia.com/gpu" not in one["containers"][0]["resources"]["limits"]


def test_a_class_that_exists_is_used_and_none_is_made(made: Made) -> None:
    objects = made("--with", "haproxy,priority=serving")
    assert not [name for name in objects if name.startswith("PriorityClass/")]
    assert pod(objects["Deployment/dsv4-haproxy"])["priorityClassName"] == "serving"


def test_a_class_a_host_and_a_mirror_are_named(made: Made) -> None:
    names = "haproxy,ingress=nginx/a.example.com,gateway=envoy/b.example.com,node-disk=http://mirror.lan:8080/hub"
    objects = made(*DISK, "--with", names)
    ingress, gateway = objects["Ingress/dsv4"]["spec"], objects["Gateway/dsv4"]["spec"]
    assert (ingress["ingressClassName"], ingress["rules"][0]["host"]) == ("nginx", "a.example.com")
    assert gateway["gatewayClassName"] == "envoy"
    assert {listener["hostname"] for listener in gateway["listeners"]} == {"b.example.com"}
    assert objects["HTTPRoute/dsv4"]["spec"]["hostnames"] == ["b.example.com"]
    fetch = pod(objects["DaemonSet/dsv4-disk"])["initContainers"][1]
    assert env(fetch)["HF_ENDPOINT"] == "http://mirror.lan:8080/hub"
    (egress,) = objects["NetworkPolicy/dsv4-disk"]["spec"]["egress"]
    assert [port["port"] for port in egress["ports"]] == [53, 53, 443, 8080]


def test_the_fleet_s_capacity_is_that_of_its_replicas(overlay_for: Callable[..., Overlay]) -> None:
    one, three = (overlay_for(*H200, "--replicas", number).capacity for number in ("1", "3"))
    assert one.startswith(
        "2 requests run at once, 2 on each replica; the KV cache of a replica has room for 17 of 524,288 tokens"
    )
    assert three.startswith("6 requests run at once, 2 on each replica; the KV cache of a replica has room for 17")


def test_an_autoscaler_stays_within_a_cell_unless_it_says_otherwise(overlay_for: Callable[..., Overlay]) -> None:
    for least, most in ((2, 4), (61, 64), (70, 70)):
        overlay = overlay_for(*H200, "--replicas", str(least), "--with", "haproxy,autoscale")
        assert edits.most_replicas(overlay) == most


def test_a_group_of_nodes_has_a_balancer_and_a_priority_too(made: Made) -> None:
    objects = made("--tp", "8", "--nodes", "2", "--with", "haproxy,priority,monitoring")
    template = objects["LeaderWorkerSet/dsv4"]["spec"]["leaderWorkerTemplate"]
    assert {template[role]["spec"]["priorityClassName"] for role in ("leaderTemplate", "workerTemplate")} == {"dsv4"}
    assert objects["Service/dsv4"]["spec"]["selector"]["app.kubernetes.io/component"] == "balancer"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--with", "haprox"), r"there is no such component \(did you mean haproxy\?\). Known: haproxy, router, "),
        (("--with", ""), "there is no such component"),
        (("--with", "haproxy,"), "there is no such component"),
        (("--with", "router,haproxy"), "--with haproxy,router: one fleet has one way in; use one of haproxy, router, "),
        (("--with", "fetch"), "use --weights fetch"),
        (("--with", "host-path"), "use --weights hostpath:/FOLDER"),
        (("--with", "several-nodes"), "use --nodes N"),
        (("--with", "haproxy=2"), "haproxy takes no value"),
        (("--with", "haproxy,ingress"), r"must be ingress=\[CLASS/\]HOST"),
        (("--with", "haproxy,ingress=a b"), r"must be ingress=\[CLASS/\]HOST"),
        (("--with", "ingress=a.example.com"), "it needs haproxy.* use --with haproxy,ingress=a.example.com"),
        (("--with", "kernels=oci://r/k:latest"), "must be kernels=oci://REF@sha256:…"),
        (("--with", "autoscale=none"), "must be autoscale=MAX"),
        (("--with", "autoscale=1"), "must be at least --replicas, 2"),
        (("--with", "autoscale=4", "--with", "autoscale=5"), "named twice, with different values"),
        (("--with", "monitoring=here"), "must be monitoring=URL"),
        (("--with", "priority=A"), "must be priority=CLASS"),
        (("--with", "node-disk"), "use --weights hostpath:/FOLDER"),
        (("--with", "node-disk", *DISK, "--model", "acti=/models/acti"), "give a model or a repository"),
        (("--tp", "8", "--nodes", "2", "--with", "autoscale"), "it is for replicas of one node, and this one has 2"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(
    overlay_for: Callable[..., Overlay], argv: tuple[str, ...], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        overlay_for(*H200, *argv)


def test_the_command_with_components_makes_it_again(overlay_for: Callable[..., Overlay]) -> None:
    overlay = overlay_for(*H200, *DISK, "--with", ",".join(reversed(ALL)))
    argv = overlay.command.split()[2:]
    assert write.files(overlay_for(*argv)) == write.files(overlay)


def test_an_edit_whose_text_is_gone_is_noticed(overlay_for: Callable[..., Overlay], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    with pytest.raises(LookupError, match="has no 'other'"):
        write._edit(file, {"other": "new"})


def test_what_a_component_needs_is_said(overlay_for: Callable[..., Overlay]) -> None:
    notes = " ".join(overlay_for(*H200, *DISK, "--with", ",".join(ALL)).notes)
    for text in ("Secret dsv4-tls", "install KEDA", "Prometheus operator", "rollout status daemonset/dsv4-disk"):
        assert text in notes


def test_own_profiles_are_a_config_map_where_serve_reads_them(
    overlay_for: Callable[..., Overlay], rendered: Callable[[Path], dict[str, Any]], tmp_path: Path, monkeypatch: Any
) -> None:
    mine = tmp_path / "mine"
    (mine / "hardware").mkdir(parents=True)
    (mine / "short.toml").write_text('about = "short"\nextends = "64k"\n[flags]\nmax-num-seqs = 3\n')
    (mine / "hardware/box.toml").write_text(
        'extends = "h200"\nnvml-names = ["NVIDIA H200 BOX"]\ntuned-kernels = "box-kernels"\n'
    )
    (mine / "hardware/box-kernels").mkdir()
    table = "humming_moe,E=256,N=4096,K=1024,a_dtype=float8e4m3,b_dtype=float4e2m1,device_name=NVIDIA_H200_BOX.json"
    (mine / "hardware/box-kernels" / table).write_text('{"tuning_config": []}')
    monkeypatch.setenv("DSV4_PROFILES", str(mine))
    for number, argv in enumerate(((*DISK, "--with", f"node-disk,kernels={PACK}"), ("--tp", "8", "--nodes", "2"))):
        folder = tmp_path / f"out{number}"
        write.folder(overlay_for("--profile", "short", "--hardware", "box", *argv), folder)
        objects = rendered(folder)
        (name,) = (one.partition("/")[2] for one in objects if one.startswith("ConfigMap/dsv4-profiles"))
        data = objects[f"ConfigMap/{name}"]["data"]
        pods = [pod(one) for one in objects.values() if "template" in one.get("spec", {})]
        if group := objects.get("LeaderWorkerSet/dsv4"):
            template = group["spec"]["leaderWorkerTemplate"]
            pods = [template[role]["spec"] for role in ("leaderTemplate", "workerTemplate")]
        assert len(pods) == 2
        for one in pods:
            (volume,) = [v["configMap"] for v in one["volumes"] if v["name"] == "profiles"]
            assert volume["name"] == name
            held = {item["path"]: data[item["key"]] for item in volume["items"]}
            files = [path for path in mine.rglob("*") if path.is_file()]
            assert held == {str(path.relative_to(mine)): path.read_text() for path in files}
            assert all(re.fullmatch(r"[-._a-zA-Z0-9]+", item["key"]) for item in volume["items"])
            reading = [c for c in (*one.get("initContainers", []), *one["containers"]) if "DSV4_PROFILES" in env_of(c)]
            assert reading
            for container in reading:
                mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
                assert mounts["profiles"] == env_of(container)["DSV4_PROFILES"]
        assert "NVIDIA-H200-BOX" in yaml.safe_dump(pods)


def env_of(container: dict[str, Any]) -> dict[str, str]:
    return env(container) if "env" in container else {}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("hardware/a,b/{}", "hardware/a-b/{}"),
        ("a b.toml", "a-b.toml"),
        ("hardware__box.toml", "hardware/box.toml"),
    ],
)
def test_files_with_one_key_in_the_config_map_are_refused(
    overlay_for: Callable[..., Overlay], tmp_path: Path, monkeypatch: Any, first: str, second: str
) -> None:
    monkeypatch.setenv("DSV4_PROFILES", str(tmp_path))
    table = "humming_moe,E=256,N=4096,K=1024,a_dtype=float8e4m3,b_dtype=float4e2m1,device_name=NVIDIA_H200_BOX.json"
    paths = [each.format(table) for each in (first, second)]
    for number, path in enumerate(paths):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
        if not number:
            overlay_for(*H200)  # one alone is no fault
    with pytest.raises(ConfigError, match="have the same key in a ConfigMap") as refused:
        overlay_for(*H200)
    assert all(path in str(refused.value) for path in paths)


def test_profiles_that_a_config_map_cannot_hold_are_refused(
    overlay_for: Callable[..., Overlay], tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "big.toml").write_text('extends = "64k"\n' + "# long\n" * 150_000)
    monkeypatch.setenv("DSV4_PROFILES", str(tmp_path))
    with pytest.raises(ConfigError, match="a ConfigMap holds 1 MiB"):
        overlay_for(*H200)
