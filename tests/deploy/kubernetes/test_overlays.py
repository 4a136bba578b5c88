"""What each overlay promises once Kustomize has put it together."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsv4_serve.entrypoint.containers.deployment import BALANCER_IMAGE
from dsv4_serve.entrypoint.kernel_packs import at_start
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.resolve.environment import Variables
from dsv4_serve.entrypoint.weights.manifest import NAME as MANIFEST
from tests.deploy.kubernetes.rendered import (
    KUBERNETES,
    OVERLAYS,
    ROOT,
    container,
    containers,
    env,
    gib,
    laid_over,
    one,
    ours,
    overlay,
    replicas,
    templates,
)
from tests.support import command
from tests.support.balancer import variables
from tests.support.plans import request, resolved
from tests.support.program import ends_at_once, need

VLLM_FLAGS = {
    f"--{name}" for name in json.loads((ROOT / "entrypoint/vllm_schema/vllm-0.32.0.json").read_text())["flags"]
}
NODE_FLAGS = {"--nnodes", "--node-rank", "--master-addr", "--headless"}
"""What tells the pods of one group apart; nothing about how vLLM is started."""
SERVES_GPUS = [name for name in OVERLAYS if name not in ("demo", "pro-multinode", "qualify", "canary")]
IMAGE = f"registry.example.com/dsv4-serve@sha256:{'1' * 64}"
WITH_TOKEN = {"dsv4-router", "dsv4-picker"}
"""They watch pods."""


@pytest.fixture(params=OVERLAYS)
def name(request: pytest.FixtureRequest) -> str:
    need("kubectl", "KUBECTL")
    return request.param


def test_every_overlay_of_the_issue_is_there() -> None:
    assert set(OVERLAYS) == {
        *("rtx-pro-6000-tp2", "rtx-pro-6000-tp4", "h200", "b300", "pro-multinode", "demo"),
        *("haproxy", "router", "gateway-inference", "autoscale", "monitoring", "dra"),
        *("host-path", "image-volume", "fetch", "kernels", "qualify", "candidate", "canary"),
        *("ingress", "gateway", "node-disk"),
    }


def test_pods_are_restricted_as_pod_security_wants_it(name: str) -> None:
    for _, template in templates(overlay(name)):
        pod = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["enableServiceLinks"] is False
        assert all(volume_is_restricted(volume, name) for volume in pod.get("volumes", []))
        for one_container in containers(pod):
            assert {"memory", "cpu"} <= set(one_container["resources"]["requests"])
            assert "memory" in one_container["resources"]["limits"]
            if (name, one_container["name"]) == ("node-disk", "folders"):
                continue  # it gives two folders of the node to the user 2000
            assert one_container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def volume_is_restricted(volume: dict[str, Any], name: str) -> bool:
    (kind,) = set(volume) - {"name"}
    allowed = {"configMap", "emptyDir", "secret", "persistentVolumeClaim", "image"}
    return kind in allowed or (kind == "hostPath" and name in ("host-path", "node-disk"))


def test_only_pods_that_watch_pods_have_a_token(name: str) -> None:
    manifests = overlay(name)
    assert not [m for m in manifests if m["kind"] in ("Secret", "ClusterRole", "ClusterRoleBinding")]
    for owner, template in templates(manifests):
        assert template["spec"]["automountServiceAccountToken"] is (owner in WITH_TOKEN)


def test_every_image_is_a_digest(name: str) -> None:
    images = [c["image"] for _, template in templates(overlay(name)) for c in containers(template["spec"])]
    assert images
    if name == "demo":
        assert images == ["localhost/dsv4-serve:cpu"]
    else:
        assert all(re.search("@sha256:[0-9a-f]{64}$", image) for image in images)


def test_one_line_replaces_every_placeholder_of_our_image(name: str) -> None:
    if name == "demo":
        pytest.skip("the demo's image is built on the spot")
    pods = [template["spec"] for _, template in templates(laid_over(name, IMAGE))]
    images = [c["image"] for pod in pods for c in containers(pod) if "dsv4-serve" in c["image"]]
    assert images
    assert set(images) == {IMAGE}


def test_no_flag_of_vllm_stands_in_any_manifest(name: str) -> None:
    for _, template in templates(overlay(name)):
        if not ours(template["spec"]):
            continue
        for one_container in containers(template["spec"]):
            words = " ".join([*one_container.get("command", []), *one_container.get("args", [])])
            flags = set(re.findall(r"--[a-z][a-z-]+", words))
            assert flags & VLLM_FLAGS <= (NODE_FLAGS if name == "pro-multinode" else set())
        names = set(env(container(template["spec"]))) - {"HF_HUB_OFFLINE", "CANARY_KEY_FILE", "NVIDIA_VISIBLE_DEVICES"}
        assert names <= set(Variables.model_fields) - {"MAX_MODEL_LEN", "MAX_NUM_SEQS", "GPU_MEMORY_UTILIZATION"}


def test_memory_counts_every_volume_in_memory_and_drains_have_their_time(name: str) -> None:
    for pod in replicas(overlay(name)):
        resources = container(pod)["resources"]
        shared = sum(gib(v["emptyDir"]["sizeLimit"]) for v in pod["volumes"] if v.get("emptyDir", {}).get("medium"))
        assert resources["limits"]["memory"] == resources["requests"]["memory"]
        assert gib(resources["limits"]["memory"]) >= shared + 4
        assert pod["terminationGracePeriodSeconds"] == 160


def test_services_budgets_and_policies_find_their_pods(name: str) -> None:
    manifests = overlay(name)
    pods = [template for _, template in templates(manifests)]
    labels = [pod["metadata"]["labels"] for pod in pods]

    def found(selector: dict[str, str]) -> list[dict[str, Any]]:
        return [pods[i] for i, have in enumerate(labels) if selector.items() <= have.items()]

    for manifest in manifests:
        spec = manifest.get("spec", {})
        match manifest["kind"]:
            case "Service":
                (pod,) = found(spec["selector"])
                ports = {port["name"] for port in container(pod["spec"])["ports"]}
                assert {port["targetPort"] for port in spec["ports"]} <= ports
            case "PodDisruptionBudget" | "InferencePool":
                assert found(spec["selector"]["matchLabels"])
            case "NetworkPolicy":
                assert found(spec["podSelector"]["matchLabels"])
                named = {p["port"] for r in spec.get("ingress", []) for p in r.get("ports", [])} - {8000, 8001}
                ports = {
                    port
                    for pod in found(spec["podSelector"]["matchLabels"])
                    for p in container(pod["spec"]).get("ports", [])
                    for port in (p["name"], p["containerPort"])
                }
                if manifest["metadata"]["name"] != "dsv4-monitoring":  # also for parts that other components bring
                    assert named <= ports


def test_all_objects_lie_in_one_namespace_and_a_user_can_move_them(name: str) -> None:
    assert {m["metadata"].get("namespace") for m in overlay(name) if m["kind"] != "PriorityClass"} == {"dsv4"}
    moved = laid_over(name, IMAGE)
    assert {m["metadata"].get("namespace") for m in moved if m["kind"] != "PriorityClass"} == {"mine"}
    subjects = [subject for m in moved if m["kind"] == "RoleBinding" for subject in m["subjects"]]
    assert {subject["namespace"] for subject in subjects} <= {"mine"}


@pytest.mark.parametrize("name", SERVES_GPUS)
def test_a_replica_is_one_that_dsv4_serves_on_the_gpus_it_gets(name: str) -> None:
    manifests = overlay(name)
    (pod,) = replicas(manifests)
    variables = env(container(pod))
    product = pod.get("nodeSelector", {}).get("nvidia.com/gpu.product")
    if product is None:  # a ResourceClaim names it
        device = one(manifests, "ResourceClaimTemplate", "dsv4-gpus")["spec"]["spec"]["devices"]["requests"][0][
            "exactly"
        ]
        assert device["count"] == int(variables["TP"])
        product = re.findall('== "([^"]+)"', device["selectors"][0]["cel"]["expression"])[0].replace(" ", "-")
        assert "nvidia.com/gpu" not in container(pod)["resources"]["limits"]
    else:
        assert container(pod)["resources"]["limits"]["nvidia.com/gpu"] == int(variables["TP"])
    settings = {key: variables[key] for key in ("PROFILE", "MODEL", "TP")}
    settings["MODEL"] = settings["MODEL"].partition("=")[0]
    env_ = {"PATH": os.environ["PATH"]} | settings
    done = command.run("fit", "--hardware", hardware_of(product), "--format", "json", env=env_)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["fits"] is True


def hardware_of(product: str) -> str:
    """The hardware of profiles/ whose name in NVML makes this label."""
    hardware_files = {file.stem: file.read_text() for file in (ROOT / "profiles/hardware").glob("*.toml")}
    (found,) = [
        name
        for name, text in hardware_files.items()
        for seen in re.findall('"(NVIDIA [^"]+)"', text)
        if seen.replace(" ", "-") == product
    ]
    return found


def test_haproxy_reads_the_very_file_that_compose_mounts() -> None:
    manifests = overlay("haproxy")
    (generated,) = [m for m in manifests if m["kind"] == "ConfigMap"]
    held = {name: (ROOT / "deploy/haproxy" / name).read_text() for name in ("haproxy.cfg", "keys.lua", "fleet.html")}
    configuration = held["haproxy.cfg"]
    assert generated["data"] == held
    pod = one(manifests, "Deployment", "dsv4-haproxy")["spec"]["template"]["spec"]
    mounted = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    assert mounted == [generated["metadata"]["name"]]
    assert container(pod)["image"] == BALANCER_IMAGE
    assert set(env(container(pod))) - {"NAMESPACE"} <= variables()
    stop = int(re.findall(r"hard-stop-after (\d+)s", configuration)[0])
    assert container(pod)["lifecycle"]["preStop"]["sleep"]["seconds"] + stop < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("name", ["haproxy", "router"])
def test_with_a_balancer_the_name_that_clients_know_leads_to_it(name: str) -> None:
    assert one(overlay(name), "Service")["spec"]["selector"]["app.kubernetes.io/component"] == "balancer"
    assert (
        one(overlay(name), "Service", "dsv4-replicas")["spec"]["selector"]["app.kubernetes.io/component"] == "replica"
    )


def test_candidates_are_no_stable_replicas_and_the_canary_finds_both() -> None:
    manifests = overlay("canary")
    stable, candidate = (one(manifests, "Deployment", name)["spec"]["template"] for name in ("dsv4", "dsv4-candidate"))
    for service, template in (("dsv4-replicas", stable), ("dsv4-replicas-candidate", candidate)):
        selector = one(manifests, "Service", service)["spec"]["selector"]
        found = [one for one in (stable, candidate) if selector.items() <= one["metadata"]["labels"].items()]
        assert found == [template]
    assert env(container(candidate["spec"])) == env(container(stable["spec"]))  # the balancer limits keys for both
    balancer = env(container(one(manifests, "Deployment", "dsv4-haproxy")["spec"]["template"]["spec"]))
    assert balancer["CANDIDATE_NAME"].startswith("dsv4-replicas-candidate.")
    argv = container(one(manifests, "Job", "dsv4-canary")["spec"]["template"]["spec"])["args"]
    services = {manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == "Service"}
    named = {word.removeprefix("http://").partition(":")[0] for word in argv if word.startswith("http://")}
    assert named == {"dsv4-replicas", "dsv4-replicas-candidate", "dsv4-balancers"} <= services
    assert (
        balancer["CANARY_KEY_FILE"]
        == env(container(one(manifests, "Job", "dsv4-canary")["spec"]["template"]["spec"]))["CANARY_KEY_FILE"]
    )


def test_the_autoscaler_alone_says_how_many() -> None:
    manifests = overlay("autoscale")
    assert "replicas" not in one(manifests, "Deployment")["spec"]
    scaled = one(manifests, "ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == "dsv4"
    loggers = Path(sys.prefix).glob("lib/python*/site-packages/vllm/v1/metrics/loggers.py")
    source = "".join(file.read_text() for file in loggers)
    queried = [re.findall("vllm:[a-z_]+", trigger["metadata"]["query"])[0] for trigger in scaled["triggers"]]
    assert queried == ["vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"]
    assert not source or all(f'"{metric}"' in source for metric in queried)


def test_prometheus_scrapes_both_ports_of_a_replica_and_shows_the_key_to_both() -> None:
    manifests = overlay("monitoring")
    monitor = one(manifests, "ServiceMonitor")["spec"]
    service = one(manifests, "Service", "dsv4-replicas")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {e["port"] for e in monitor["endpoints"]} == {port["name"] for port in service["spec"]["ports"]}
    assert all("authorization" in e for e in monitor["endpoints"])
    clients = one(manifests, "Service")
    assert not monitor["selector"]["matchLabels"].items() <= clients["metadata"]["labels"].items()


def test_the_dashboard_is_the_one_that_compose_has() -> None:
    dashboard = one(overlay("monitoring"), "ConfigMap", "dsv4-dashboard")
    assert dashboard["data"] == {"dsv4.json": (ROOT / "deploy/grafana/dsv4.json").read_text()}
    assert dashboard["metadata"]["labels"] == {"grafana_dashboard": "1"}


def test_what_is_fetched_is_what_is_served_and_only_the_fetch_may_write() -> None:
    (pod,) = replicas(overlay("fetch"))
    served, _, folder = env(container(pod))["MODEL"].partition("=")
    words = [one_container["args"][:2] for one_container in pod["initContainers"]]
    assert words == [["weights", "fetch"], ["weights", "verify"]]
    for one_container in pod["initContainers"]:
        weights = env(one_container)["WEIGHTS"]
        assert weights == served
        assert one_container["args"][-1].replace("$(WEIGHTS)", weights) == folder
    mounts = {
        c["name"]: m.get("readOnly", False) for c in containers(pod) for m in c["volumeMounts"] if m["name"] == "models"
    }
    assert mounts == {"fetch": False, "verify": False, "replica": True}


def test_packs_of_kernels_are_pinned_and_the_registry_may_be_asked() -> None:
    manifests = overlay("kernels")
    (pod,) = replicas(manifests)
    assert at_start.sources(env(container(pod))["DSV4_KERNELS"]) == [env(container(pod))["DSV4_KERNELS"]]
    policy = one(manifests, "NetworkPolicy", "dsv4-kernels")
    assert policy["spec"]["egress"] == [{"ports": [{"port": 443, "protocol": "TCP"}]}]


def test_a_disk_is_filled_by_whom_the_replica_waits_for_and_with_what_it_serves() -> None:
    manifests = overlay("node-disk")
    (pod,) = replicas(manifests)
    disk = one(manifests, "DaemonSet", "dsv4-disk")["spec"]["template"]["spec"]
    assert [c["name"] for c in disk["initContainers"]] == ["folders", "fetch"]
    served = env(container(pod))["MODEL"].partition("=")[0]
    (wait,) = pod["initContainers"]
    assert env(disk["initContainers"][1])["WEIGHTS"] == env(wait)["WEIGHTS"] == served
    assert f'"/models/$WEIGHTS/{MANIFEST}"' in wait["args"][0]
    assert disk["nodeSelector"] == pod["nodeSelector"]
    paths = [
        {v["name"]: v["hostPath"]["path"] for v in one_pod["volumes"] if "hostPath" in v} for one_pod in (pod, disk)
    ]
    assert paths[0] == paths[1]
    root = disk["initContainers"][0]["securityContext"]
    assert (root["capabilities"], root["allowPrivilegeEscalation"]) == (
        {"drop": ["ALL"], "add": ["CHOWN", "FOWNER"]},
        False,
    )


ROLES = ("replica", "balancer", "picker", "disk", "qualify", "candidate", "canary")


def test_policies_open_the_ports_that_are_needed_and_no_other(name: str) -> None:
    policies = [m for m in overlay(name) if m["kind"] == "NetworkPolicy"]
    for policy in policies:
        spec, who = policy["spec"], policy["metadata"]["name"]
        assert spec["podSelector"]["matchLabels"].get("app.kubernetes.io/component", "group") in (*ROLES, "group")
        if who == "dsv4-group":
            continue  # NCCL selects its ports
        assert all(rule.get("ports") for rule in (*spec.get("ingress", []), *spec.get("egress", [])))
        open_ports = [p["port"] for rule in spec.get("ingress", []) if "from" not in rule for p in rule["ports"]]
        assert open_ports == (["api"] if who == "dsv4-haproxy" else [])
        anywhere = {p["port"] for rule in spec.get("egress", []) if "to" not in rule for p in rule["ports"]}
        https = {"dsv4-fetch": {443}, "dsv4-kernels": {443}, "dsv4-disk": {53, 443}}
        api = {"dsv4-router": {53, 443, 6443}, "dsv4-picker": {53, 443, 6443}}
        assert anywhere <= {**https, **api}.get(who, {53})


def test_behind_a_balancer_only_it_and_prometheus_reach_a_replica() -> None:
    def sources(name: str) -> set[str]:
        policies = [m["spec"] for m in overlay(name) if m["kind"] == "NetworkPolicy"]
        found = [
            p
            for p in policies
            if p["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/component") == "replica"
        ]
        return {str(source) for p in found for rule in p.get("ingress", []) for source in rule["from"]}

    assert any("dsv4-serve/client" in source for source in sources("h200"))
    for name in ("haproxy", "router", "gateway-inference", "monitoring"):
        assert not any("dsv4-serve/client" in source for source in sources(name))
    assert len(sources("monitoring")) == len(sources("haproxy")) + 1


@pytest.mark.parametrize(
    ("components", "kind"),
    [
        (("fetch", "host-path"), "Storage"),
        (("host-path", "image-volume"), "Storage"),
        (("haproxy", "router"), "WayIn"),
        (("gateway-inference", "haproxy"), "WayIn"),
    ],
)
def test_two_components_for_one_thing_are_refused_by_name_in_any_order(
    components: tuple[str, str], kind: str, tmp_path: Path
) -> None:
    program = need("kubectl", "KUBECTL")
    at = os.path.relpath(KUBERNETES, tmp_path)
    for order in (components, components[::-1]):
        body = {"resources": [f"{at}/base"], "components": [f"{at}/components/{one_name}" for one_name in order]}
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(body))
        argv = [program, "kustomize", tmp_path]
        done = subprocess.run(argv, env=ends_at_once(), capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert f"already registered id: {kind}.v1.dsv4-serve/choose-one-of-" in done.stderr
        assert all(one_name in done.stderr for one_name in components)


def test_an_ingress_and_a_gateway_end_tls_and_lead_to_the_balancer() -> None:
    ingress = one(overlay("ingress"), "Ingress")["spec"]
    assert ingress["tls"] == [{"hosts": [ingress["rules"][0]["host"]], "secretName": "dsv4-tls"}]
    manifests = overlay("gateway")
    listeners = {one_listener["name"]: one_listener for one_listener in one(manifests, "Gateway")["spec"]["listeners"]}
    assert listeners["https"]["tls"]["certificateRefs"] == [{"name": "dsv4-tls"}]
    assert one(manifests, "HTTPRoute", "dsv4")["spec"]["parentRefs"] == [{"name": "dsv4", "sectionName": "https"}]
    (plain,) = one(manifests, "HTTPRoute", "dsv4-redirect")["spec"]["rules"]
    assert "backendRefs" not in plain
    for name in ("ingress", "gateway"):
        assert one(overlay(name), "Service")["spec"]["selector"]["app.kubernetes.io/component"] == "balancer"


def test_replicas_and_balancer_have_the_priority() -> None:
    manifests = overlay("gateway")
    classes = {owner: template["spec"].get("priorityClassName") for owner, template in templates(manifests)}
    assert classes == {"dsv4": "dsv4", "dsv4-haproxy": "dsv4"}
    assert one(manifests, "PriorityClass")["value"] > 0


@pytest.mark.parametrize(("name", "kind"), [("host-path", "hostPath"), ("image-volume", "image")])
def test_a_kind_of_storage_replaces_the_claim(name: str, kind: str) -> None:
    (pod,) = replicas(overlay(name))
    (models,) = [volume for volume in pod["volumes"] if volume["name"] == "models"]
    assert set(models) == {"name", kind}


def test_a_group_of_two_nodes_has_the_gpus_of_its_tensor_parallel_size() -> None:
    group = one(overlay("pro-multinode"), "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]
    pods = [group[role]["spec"] for role in ("leaderTemplate", "workerTemplate")]
    gpus = {container(pod)["resources"]["limits"]["nvidia.com/gpu"] for pod in pods}
    assert [env(container(pod)) for pod in pods] == [env(container(pods[0]))] * 2
    assert gpus.pop() * group["size"] == int(env(container(pods[0]))["TP"])
    assert not gpus
    leader, follower = (container(pod) for pod in pods)
    for probe in ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle"):
        assert follower[probe] == leader[probe]
    assert follower["args"] == ["serve", "--headless", *leader["args"][1:]]


def test_each_pod_of_a_group_has_a_plan_for_its_place() -> None:
    group = one(overlay("pro-multinode"), "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]
    for rank, role in enumerate(("leaderTemplate", "workerTemplate")):
        pod = container(group[role]["spec"])
        where = {"$(LWS_GROUP_SIZE)": 2, "$(LWS_WORKER_INDEX)": rank, "$(LWS_LEADER_ADDRESS)": "dsv4-0.dsv4.mine"}
        words = (word.removeprefix("--").partition("=") for word in pod["args"][1:])
        flags: dict[str, Any] = {name.replace("-", "_"): where.get(value, True) for name, _, value in words}
        settings = env(pod)
        model, size = settings["MODEL"].partition("=")[0], int(settings["TP"])
        gpus = HostGpus(settings["HARDWARE"], "test", pod["resources"]["limits"]["nvidia.com/gpu"])
        plan = resolved(request(profile="pro", model=model, tensor_parallel_size=size, **flags), gpus=gpus)
        assert (plan.value("nnodes"), plan.value("node-rank")) == (2, rank)
        assert bool(plan.value("headless")) == bool(rank)
