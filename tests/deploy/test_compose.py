"""docker-compose.yml: what it promises of isolation, time and names, and that Docker Compose reads it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsv4_serve.entrypoint.resolve.environment import Variables
from dsv4_serve.entrypoint.supervision_settings import Supervise
from dsv4_serve.entrypoint.supervisor.supervisor import TERM
from dsv4_serve.entrypoint.toml_file import read
from tests.support.balancer import Names, balancer, variables
from tests.support.patience import slowness
from tests.support.program import need

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
COMPOSE = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
REPLICAS = {name: service for name, service in SERVICES.items() if "replica" in name or "demo" in name}
GPU = {name: service for name, service in REPLICAS.items() if "demo" not in name}


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_has_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "network_mode", "ipc", "pid", "cap_add", "devices"} & set(service)
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"]["max-size"]


def started() -> dict[str, dict[str, Any]]:
    """Every service that has an image, of each compose file; files that are laid over others change services too."""
    files = [FILE, *(ROOT / "deploy").glob("*/*.yml")]
    services = {file: (yaml.safe_load(file.read_text()) or {}).get("services", {}) for file in files}
    return {
        f"{file.name} {name}": one for file, all_ in services.items() for name, one in all_.items() if "image" in one
    }


@pytest.mark.parametrize("name", started())
def test_no_container_can_take_all_memory_or_processes_of_the_host(name: str) -> None:
    service = started()[name]
    limits = {"mem_limit": "", "pids_limit": "", "shm_size": "0gb", **service}
    memory, pids, shared = (re.sub(r".*:-|}", "", str(limits[one])) for one in ("mem_limit", "pids_limit", "shm_size"))
    assert int(pids) >= 64
    amount, unit = int(memory[:-1]), memory[-1]
    assert unit in "mg"
    assert amount * {"m": 1, "g": 1024}[unit] > 2 * 1024 * int(shared.removesuffix("gb"))


@pytest.mark.parametrize("name", [n for n, s in SERVICES.items() if n != "balancer" and "ports" in s])
def test_only_the_balancer_listens_to_other_hosts(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])


@pytest.mark.parametrize("name", REPLICAS)
def test_a_replica_publishes_no_port_and_is_found_by_the_balancer(name: str) -> None:
    assert "ports" not in REPLICAS[name]
    assert REPLICAS[name]["networks"] == {"dsv4": {"aliases": ["replica"]}}


@pytest.mark.parametrize("name", REPLICAS)
def test_no_flag_of_vllm_stands_here(name: str) -> None:
    assert not {"command", "entrypoint"} & set(REPLICAS[name])
    ours = set(Variables.model_fields) - {"MAX_MODEL_LEN", "MAX_NUM_SEQS", "GPU_MEMORY_UTILIZATION"}
    of_traces = {name for name in REPLICAS[name]["environment"] if name.startswith("OTEL_")}
    assert set(REPLICAS[name]["environment"]) - of_traces <= ours


def test_docker_waits_as_long_as_a_drain_may_take() -> None:
    settings = Supervise()
    running = read(ROOT / "profiles/base.toml")["flags"]["shutdown-timeout"]
    most = settings.drain_wait + running + settings.stop_grace
    for service in [*REPLICAS.values(), SERVICES["balancer"]]:
        assert int(service["stop_grace_period"].removesuffix("s")) >= most + TERM
    assert f"hard-stop-after {most:.0f}s" in (ROOT / "deploy/haproxy/haproxy.cfg").read_text()


def test_replicas_have_gpus_run_directories_and_containers_of_their_own() -> None:
    together = [GPU["replica-0"], GPU["replica-1"]]
    gpus = [gpu for service in together for gpu in devices(service)]
    assert gpus == ["${GPU_0:-0}", "${GPU_1:-1}", "${GPU_2:-2}", "${GPU_3:-3}"]
    assert devices(GPU["replica-tp4"]) == gpus
    assert all(service["environment"]["TP"] == str(len(devices(service))) for service in GPU.values())
    folders = [service["environment"]["DSV4_RUN_DIR"] for service in REPLICAS.values()]
    assert len(set(folders)) == len(REPLICAS)
    assert all(folder.startswith("/var/cache/dsv4/run/") for folder in folders)


def devices(service: dict[str, Any]) -> list[str]:
    return service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]


@pytest.mark.parametrize("name", REPLICAS)
def test_weights_are_read_only_and_the_key_is_a_file(name: str) -> None:
    mounts = REPLICAS[name]["volumes"]
    assert mounts[0] == "cache:/var/cache/dsv4"
    assert all(mount.endswith(":/models:ro") for mount in mounts[1:])
    assert REPLICAS[name]["environment"]["API_KEY_FILE"] == "/run/secrets/api-key"
    assert REPLICAS[name]["secrets"] == ["api-key"]
    assert COMPOSE["secrets"]["api-key"] == {"file": "${API_KEY_FILE:-./secrets/api-key}"}
    assert REPLICAS[name]["environment"]["DSV4_KEY_LIMITS"] == "off"


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_can_be_named_and_a_foreign_one_is_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    assert re.fullmatch(r"\$\{[A-Z0-9_]+_IMAGE:-[^}]+}", image)
    assert "dsv4-serve" in image or re.search(r"@sha256:[0-9a-f]{64}}$", image)


def test_every_variable_of_the_balancer_is_one_of_its_configuration() -> None:
    known = variables()
    assert set(SERVICES["balancer"]["environment"]) <= known
    documented = (ROOT / "docs/how-to/compose.md").read_text()
    compose = set(re.findall(r"\$\{([A-Z0-9_]+):-", FILE.read_text()))
    assert {name for name in known | compose if f"`{name}`" not in documented} == set()


@pytest.mark.parametrize("file", ["compose.yml", "acme.yml"])
def test_the_files_for_tls_change_the_balancer_alone(file: str) -> None:
    services = yaml.safe_load((ROOT / "deploy/tls" / file).read_text())["services"]
    balancer = services.pop("balancer")
    assert set(balancer["environment"]) == {"BALANCER_CERTIFICATE"} <= variables()
    assert balancer["environment"]["BALANCER_CERTIFICATE"].startswith(balancer["volumes"][0].split(":")[-2])
    assert balancer["volumes"][0].endswith(":ro")
    assert (services == {}) == (file == "compose.yml")
    for service in services.values():
        assert (service["read_only"], service["cap_drop"], service["user"]) == (True, ["ALL"], "2000:0")
        assert service["security_opt"] == ["no-new-privileges:true"]


def compose(*words: str) -> str:
    """What Docker Compose says; skip where there is none (COMPOSE names one)."""
    program = need("docker-compose", "COMPOSE")
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    argv = [program, "--project-directory", ROOT, *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("profiles", "started"),
    [
        ([], {"balancer", "replica-0", "replica-1"}),
        (["tp4"], {"balancer", "replica-tp4"}),
        (["demo"], {"balancer", "demo-0", "demo-1"}),
        (["tp2", "monitoring"], {"balancer", "replica-0", "replica-1", "prometheus", "grafana"}),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_each_profile_starts_its_replicas_and_the_same_balancer(profiles: list[str], started: set[str]) -> None:
    words = [word for profile in profiles for word in ("--profile", profile)]
    assert set(compose(*words, "config", "--services").split()) == started


def test_the_balancer_s_health_check_hears_its_answer(tmp_path: Path) -> None:

    binary = need("haproxy", "HAPROXY")
    words = SERVICES["balancer"]["healthcheck"]["test"][1:]
    with balancer(tmp_path, Names(), binary=binary) as running:
        here = [word.replace("8404", str(running.status_port)) for word in words]
        assert subprocess.run(here, timeout=5 * slowness(), check=False).returncode == 0
    assert subprocess.run(here, timeout=5 * slowness(), check=False, stderr=subprocess.DEVNULL).returncode != 0


def test_grafana_has_a_password_of_its_own() -> None:
    """And neither it nor Prometheus can read the list of keys."""
    grafana, prometheus = COMPOSE["services"]["grafana"], COMPOSE["services"]["prometheus"]
    assert (grafana["secrets"], prometheus["secrets"]) == (["grafana-password"], ["metrics-key"])
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana-password"
    assert COMPOSE["secrets"]["grafana-password"]["file"] != COMPOSE["secrets"]["api-key"]["file"]


def test_a_candidate_differs_from_replica_1_in_its_image_and_its_names_alone() -> None:
    candidate = yaml.safe_load((ROOT / "deploy/compose/canary.yml").read_text())["services"]["candidate"]
    replica = SERVICES["replica-1"]
    own = {"container_name", "image", "networks", "environment", "deploy"}
    assert {key: value for key, value in candidate.items() if key not in own} == {
        key: value for key, value in replica.items() if key not in own
    }
    assert candidate["deploy"] == replica["deploy"]
    folder = {"DSV4_RUN_DIR": "/var/cache/dsv4/run/dsv4-candidate"}
    assert candidate["environment"] == {**replica["environment"], **folder}
