"""From a command line to a deployment."""

from __future__ import annotations

import itertools
from dataclasses import replace
from itertools import combinations

import pytest

from dsv4_serve.entrypoint.api_key import key_in
from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.cli.parser import parse
from dsv4_serve.entrypoint.cli.request import request as request_of
from dsv4_serve.entrypoint.containers import options as ours
from dsv4_serve.entrypoint.containers.containers import replica_settings
from dsv4_serve.entrypoint.containers.deployment import BALANCER_IMAGE, CPU_IMAGE, IMAGE, SHIPPED, key_file
from dsv4_serve.entrypoint.errors import ConfigError, HostError, UsageError
from dsv4_serve.entrypoint.machine.nvml import Pair
from dsv4_serve.entrypoint.machine.topology import Topology
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import select

FOUR = Topology(
    (0, 1, 2, 3),
    tuple(Pair(a, b, "PHB" if (a, b) in ((0, 1), (2, 3)) else "SYS") for a, b in combinations(range(4), 2)),
)


@pytest.fixture(autouse=True)
def environ(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in (
        "PROFILE",
        "MODEL",
        "TP",
        "PORT",
        "VLLM_API_KEY",
        "DSV4_SKIP",
        "DSV4_IMAGE",
        "DSV4_CPU_IMAGE",
        "BALANCER_IMAGE",
    ):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "key").write_text("sesame\n")
    (tmp_path / "key").chmod(0o444)
    monkeypatch.setenv("API_KEY_FILE", str(tmp_path / "key"))


@pytest.fixture
def deployment_for(monkeypatch):
    """The deployment for a command line on a host with four GPUs."""

    def deployment(*argv, topology=FOUR, **env):
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        options, rest = parse(["up", *argv])
        options = ours.with_demo(options, env)
        request = request_of(options, rest)
        selection = select(Catalog([]), request, lambda: pytest.fail("the hardware is named"))
        return ours.deployment(options, rest, request, resolve(selection, request), topology)

    return deployment


H200 = ("--hardware", "h200", "--profile", "128k", "--model", "acti")


def test_a_box_of_four_gets_two_replicas_of_two(deployment_for):
    assert deployment_for(*H200).groups == ((0, 1), (2, 3))


def test_a_replica_takes_as_many_gpus_as_its_tensor_parallel_size(deployment_for):
    found = deployment_for(*H200, "--tp", "4")
    assert found.groups == ((0, 1, 2, 3),)
    assert found.env["TP"] == "4"


def test_gpus_by_hand_go_before_topology(deployment_for):
    assert deployment_for(*H200, "--gpus", "0,2", "--gpus", "1,3").groups == ((0, 2), (1, 3))


def test_more_replicas_than_gpus_are_refused(deployment_for):
    with pytest.raises(HostError, match="3 replicas of 2 GPUs each: 6 GPUs needed, but this host shows 4"):
        deployment_for(*H200, "--replicas", "3")


def test_replicas_and_gpus_that_contradict_each_other_are_refused(deployment_for):
    with pytest.raises(ConfigError, match="--replicas 2 contradicts the number of --gpus, 1;"):
        deployment_for(*H200, "--replicas", "2", "--gpus", "0,1")


def test_the_demo_needs_no_gpu_and_brings_its_model_and_image(deployment_for):
    found = deployment_for("--profile", "demo", "--replicas", "2", topology=Topology())
    assert found.groups == ((), ())
    assert found.image == "dsv4-serve:cpu"
    assert found.env["MODEL"] == "demo=/usr/share/dsv4/demo"
    assert found.weights is None


def test_choices_are_passed_on_by_name_and_flags_as_arguments(deployment_for):
    found = deployment_for(*H200, "--max-num-seqs", "4", "--skip", "kv-cache")
    assert {k: found.env[k] for k in ("PROFILE", "MODEL", "HARDWARE", "DSV4_SKIP")} == {
        "PROFILE": "128k",
        "MODEL": "acti",
        "HARDWARE": "h200",
        "DSV4_SKIP": "kv-cache",
    }
    assert found.flags == ("--max-num-seqs", "4")
    assert found.requests == 4


def test_the_environment_goes_on_but_for_secrets_and_what_each_container_has_of_its_own(deployment_for):
    variables = {"MAX_NUM_SEQS": "6", "NCCL_DEBUG": "INFO", "DSV4_GATE_TOKENS": "8", "OTEL_SERVICE_NAME": "dsv4"}
    secret = {"HF_TOKEN": "hf_secret", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret"}
    found = deployment_for(*H200, **variables, **secret, PORT="9000", DSV4_RUN_DIR="/here", PATHEXT="x")
    assert {key: found.env.get(key) for key in variables} == variables
    assert not {*secret, "PORT", "DSV4_RUN_DIR", "PATHEXT", "API_KEY_FILE"} & set(found.env)


def test_an_empty_variable_of_vllm_goes_on_as_it_undoes_what_a_plan_sets(deployment_for):
    tables = "VLLM_TUNED_CONFIG_FOLDER"
    arguments = ("--profile", "64k", "--model", "flash", "--hardware", "h200", "--tp", "2")
    assert tables not in deployment_for(*arguments).env
    found = deployment_for(*arguments, **{tables: "", "NCCL_DEBUG": "", "DSV4_SKIP": ""})
    assert found.env[tables] == ""
    assert not {"NCCL_DEBUG", "DSV4_SKIP"} & set(found.env)


def test_limits_are_those_of_compose(deployment_for):
    found = deployment_for(*H200, REPLICA_MEMORY="1.5g", REPLICA_PIDS="900")
    assert (found.memory, found.pids) == (3 * 2**29, 900)
    for name, wrong in itertools.product(
        ("REPLICA_MEMORY", "REPLICA_PIDS"), ("-1", "0", "96GiBs", "nan", "٣", "9" * 30)
    ):
        with pytest.raises(ConfigError, match=f"environment {name} = {wrong}: this is not a"):
            deployment_for(*H200, **{"REPLICA_MEMORY": "1g", name: wrong})


def test_copies_of_kv_caches_get_memory_of_their_own(deployment_for):
    found = deployment_for(*H200, "--kv-offloading-size", "40.5")
    host = replica_settings(found, 0, "sha256:1", podman=False)["HostConfig"]
    assert (found.memory, found.offloading) == (0, 41)
    assert (host["ShmSize"], host["Memory"]) == ((16 + 41) * 2**30, (96 + 41) * 2**30)
    own = replica_settings(replace(found, memory=2**30), 0, "sha256:1", podman=False)["HostConfig"]
    assert own["Memory"] == 2**30
    assert deployment_for(*H200).offloading == 0


def test_a_stop_gets_the_time_that_a_drain_takes(deployment_for):
    assert deployment_for(*H200).stop_seconds == 5 + 120 + 20 + 5
    assert (
        deployment_for(*H200, "--shutdown-timeout", "600", "--supervise.drain-wait", "10").stop_seconds
        == 10 + 600 + 20 + 5
    )


def test_the_folder_of_a_model_is_mounted(deployment_for, tmp_path):
    (tmp_path / "acti").mkdir()
    argv = ("--hardware", "h200", "--profile", "128k", "--skip", "model-files")  # it is empty
    assert deployment_for(*argv, "--model", f"acti={tmp_path}/acti").weights == tmp_path / "acti"
    with pytest.raises(ConfigError, match="this folder does not exist"):
        deployment_for(*argv, "--model", f"acti={tmp_path}/none")


def test_a_snapshot_of_the_hub_is_mounted_with_the_files_that_it_links_to(deployment_for, tmp_path):
    snapshot = tmp_path / "models--a--b/snapshots/0123"
    snapshot.mkdir(parents=True)
    argv = ("--hardware", "h200", "--profile", "128k", "--skip", "model-files")  # it is empty
    found = deployment_for(*argv, "--model", f"acti={snapshot}")
    assert found.weights == tmp_path / "models--a--b"


def test_a_key_on_the_command_line_is_refused(deployment_for):
    with pytest.raises(ConfigError, match="--api-key-file FILE"):
        deployment_for(*H200, "--api-key", "sesame", API_KEY_FILE="")


def test_a_deployment_without_a_key_is_refused_with_the_way_to_make_one(deployment_for):
    with pytest.raises(ConfigError, match="There is no secrets/api-key.*openssl rand -hex 32"):
        deployment_for(*H200, API_KEY_FILE="")


def test_the_key_is_looked_for_where_compose_looks(deployment_for, tmp_path):
    (tmp_path / "secrets").mkdir(mode=0o700)
    (tmp_path / "key").rename(tmp_path / "secrets/api-key")
    assert deployment_for(*H200, API_KEY_FILE="").key_file == tmp_path / "secrets/api-key"


def test_images_can_be_named_as_compose_names_them(deployment_for):
    found = deployment_for(*H200, DSV4_IMAGE="here/dsv4:1", BALANCER_IMAGE="here/haproxy:3", REPLICA_TIMEOUT="2h")
    assert (found.image, found.balancer_image) == ("here/dsv4:1", "here/haproxy:3")
    assert found.balancer_env == {"REPLICA_TIMEOUT": "2h"}


def test_a_certificate_is_a_file_that_the_containers_can_read(deployment_for, tmp_path):
    (tmp_path / "tls.crt").write_text("PEM")
    (tmp_path / "tls.crt").chmod(0o644)
    assert deployment_for(*H200, BALANCER_CERTIFICATE="tls.crt").certificate == (tmp_path / "tls.crt",)
    (tmp_path / "tls.key").write_text("PEM")
    (tmp_path / "tls.key").chmod(0o600)
    with pytest.raises(ConfigError, match=r"BALANCER_CERTIFICATE .*tls.key: the containers, .* cannot read it"):
        deployment_for(*H200, BALANCER_CERTIFICATE="tls.crt")
    (tmp_path / "tls.key").chmod(0o644)
    found = deployment_for(*H200, BALANCER_CERTIFICATE="tls.crt").certificate
    assert found == (tmp_path / "tls.crt", tmp_path / "tls.key")
    with pytest.raises(ConfigError, match=r"BALANCER_CERTIFICATE none: this file does not exist"):
        deployment_for(*H200, BALANCER_CERTIFICATE="none")
    assert deployment_for(*H200, BALANCER_CERTIFICATE="").certificate == ()


def test_the_images_are_those_of_the_compose_file():
    compose = (SHIPPED / "docker-compose.yml").read_text()
    for name in (IMAGE, CPU_IMAGE, BALANCER_IMAGE):
        assert f":-{name}}}" in compose


def test_a_key_that_the_containers_could_not_read_is_refused_before_they_start(tmp_path):
    key = tmp_path / "key"
    key.chmod(0o600)
    with pytest.raises(ConfigError, match=r"cannot read it \(mode 600, owner \d+:\d+\); mode 644 allows it"):
        key_file(str(key), "--api-key-file")
    key.chmod(0o440)
    if key.stat().st_gid == 0:
        assert key_file(str(key), "--api-key-file") == key


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file has no key"),
        (b"two words\n", "line 1: the key is weak"),
        (b"a\nb\n", "line 1: write NAME KEY"),
        (b"#a", "the file has no key"),
        (b"\xff\xfe", "not UTF-8 text"),
    ],
)
def test_a_key_file_has_to_hold_a_key(tmp_path, content, why):
    key = tmp_path / "key"
    key.chmod(0o644)
    key.write_bytes(content)
    with pytest.raises(ConfigError, match=why):
        key_file(str(key), "--api-key-file")
    with pytest.raises(ConfigError, match=why):
        key_in(str(key), "environment API_KEY_FILE")  # a replica refuses the same


@pytest.mark.parametrize("argv", [("--replicas", "0"), ("--replicas", "many"), ("--port", "65536")])
def test_numbers_that_cannot_be_are_refused(argv):
    with pytest.raises(UsageError, match="is not a (whole number of at least|port from) 1"):
        parse(["up", *argv])


def test_folders_of_kernel_packs_are_mounted_where_they_are(deployment_for, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "packs").mkdir()
    pinned = f"oci://registry.example/kernels@sha256:{'a' * 64}"
    found = deployment_for(*H200, DSV4_KERNELS=f"packs, {pinned}")
    assert found.kernels == (tmp_path / "packs",)
    assert found.env["DSV4_KERNELS"] == f"{tmp_path}/packs,{pinned}"
    with pytest.raises(ConfigError, match="DSV4_KERNELS gone"):
        deployment_for(*H200, DSV4_KERNELS="gone")
