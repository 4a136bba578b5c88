"""What the base promises of time, isolation and storage: read as it is written, without kubectl."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dsv4_serve.entrypoint.resolve.environment import Variables
from dsv4_serve.entrypoint.supervision_settings import Supervise
from dsv4_serve.entrypoint.supervisor.supervisor import TERM
from dsv4_serve.entrypoint.toml_file import read
from tests.deploy.kubernetes.rendered import BASE, KUBERNETES, PLACEHOLDER, ROOT, SELECTED, container, env, gib, one
from tests.support.each import each

DEPLOYMENT = one(BASE, "Deployment")["spec"]
POD = DEPLOYMENT["template"]["spec"]
REPLICA = container(POD)
SUPERVISE = Supervise()
COLD_LOAD = 900
"""Seconds of the slowest start that has to survive."""
PREFILL = 12 * 60
"""Seconds of a prefill of 1M tokens, the most that its card claims."""


def test_every_step_of_a_stop_has_its_time_before_the_kubelet_kills() -> None:
    waits = REPLICA["lifecycle"]["preStop"]["sleep"]["seconds"]
    runs = read(ROOT / "profiles/base.toml")["flags"]["shutdown-timeout"]
    most = waits + SUPERVISE.drain_wait + runs + SUPERVISE.stop_grace + TERM
    assert most < POD["terminationGracePeriodSeconds"] <= most + 10


def test_a_cold_load_after_the_breaker_s_longest_wait_is_not_killed() -> None:
    probe = REPLICA["startupProbe"]
    assert probe["httpGet"] == {"path": "/startupz", "port": "health"}
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 2 * COLD_LOAD + SUPERVISE.backoff_most
    assert DEPLOYMENT["progressDeadlineSeconds"] > (
        probe["periodSeconds"] * probe["failureThreshold"] + POD["terminationGracePeriodSeconds"]
    )


def test_a_hung_engine_is_ended_by_its_supervisor_first_and_a_hung_supervisor_by_the_kubelet() -> None:
    probe = REPLICA["livenessProbe"]
    assert probe["httpGet"] == {"path": "/livez", "port": "health"}
    until_killed = probe["periodSeconds"] * probe["failureThreshold"]
    assert SUPERVISE.stop_grace + TERM <= probe["terminationGracePeriodSeconds"] < until_killed <= 60


def test_the_longest_prefill_does_not_count_as_a_hang() -> None:
    assert read(ROOT / "profiles/1m.toml")["supervise"]["live-grace"] > PREFILL


def test_what_hangs_gets_no_traffic_after_a_minute() -> None:
    probe = REPLICA["readinessProbe"]
    assert probe["httpGet"] == {"path": "/readyz", "port": "health"}
    at_most = (probe["periodSeconds"] + probe["timeoutSeconds"]) * probe["failureThreshold"]
    assert SUPERVISE.ready_grace + SUPERVISE.poll + at_most <= 60


@pytest.mark.parametrize("name", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_a_busy_node_does_not_make_a_probe_fail(name: str) -> None:
    assert REPLICA[name]["timeoutSeconds"] >= 5


def test_a_rolling_update_needs_no_spare_gpu() -> None:
    assert DEPLOYMENT["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


def test_memory_counts_the_shared_memory() -> None:
    limit, request = (gib(REPLICA["resources"][kind]["memory"]) for kind in ("limits", "requests"))
    shared = [gib(v["emptyDir"]["sizeLimit"]) for v in POD["volumes"] if v.get("emptyDir", {}).get("medium")]
    assert shared == [16]
    assert limit == request
    assert limit - sum(shared) >= 64
    assert "cpu" not in REPLICA["resources"]["limits"]


def test_no_flag_of_vllm_stands_here_and_every_variable_is_one_of_ours() -> None:
    assert not {"command", "args"} & set(REPLICA)
    ours = set(Variables.model_fields) - {"MAX_MODEL_LEN", "MAX_NUM_SEQS", "GPU_MEMORY_UTILIZATION"}
    assert set(env(REPLICA)) <= ours | {"HF_HUB_OFFLINE"}
    assert REPLICA["image"] == f"dsv4-serve{PLACEHOLDER}"


def test_a_replica_holds_no_token_and_gets_no_variables_of_services() -> None:
    assert POD["automountServiceAccountToken"] is False
    assert one(BASE, "ServiceAccount")["automountServiceAccountToken"] is False
    assert POD["enableServiceLinks"] is False
    assert not [m for m in BASE if m["kind"] in ("Secret", "Role", "ClusterRole")]


def test_weights_are_read_only_and_what_a_restart_needs_outlives_the_container() -> None:
    mounts = {mount["mountPath"]: mount for mount in REPLICA["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    assert mounts["/models"]["readOnly"]
    assert volumes["models"]["persistentVolumeClaim"]["readOnly"]
    assert env(REPLICA)["MODEL"].partition("=")[2].startswith("/models/")
    for path in (env(REPLICA)["DSV4_RUN_DIR"], "/var/cache/dsv4", "/tmp"):
        assert "emptyDir" in volumes[mounts[path]["name"]]
        assert not mounts[path].get("readOnly")
    assert Path(env(REPLICA)["API_KEY_FILE"]).parent == Path(mounts["/run/secrets/dsv4"]["mountPath"])
    assert {mount["name"] for mount in mounts.values()} == set(volumes)


def test_the_cause_of_an_end_reaches_the_kubelet() -> None:
    assert REPLICA["terminationMessagePath"] == str(Variables().DSV4_TERMINATION_LOG)
    assert REPLICA["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_draining_nodes_takes_one_replica_at_a_time_and_never_waits_for_a_broken_one() -> None:
    budget = one(BASE, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert budget["selector"]["matchLabels"] == SELECTED


def test_only_balancers_and_labelled_clients_reach_a_replica() -> None:
    policy = one(BASE, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"] == SELECTED
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert all(rule["from"] for rule in policy["ingress"])
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [53, 53]


@each("file", sorted(KUBERNETES.rglob("kustomization.yaml")))
def test_what_a_kustomization_names_is_there(file: Path) -> None:
    body = yaml.safe_load(file.read_text())
    patches = [patch["path"] for patch in body.get("patches", []) if "path" in patch]
    generated = [name for one in body.get("configMapGenerator", []) for name in one["files"]]
    named = [*body.get("resources", []), *body.get("components", []), *patches, *generated]
    assert named
    assert [name for name in named if not (file.parent / name).exists()] == []
    assert {other.name for other in file.parent.glob("*.yaml")} - {"kustomization.yaml"} <= set(named)
