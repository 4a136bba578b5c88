"""The settings of containers, as they go to the engine."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from dsv4_serve.entrypoint.containers.containers import balancer_settings, replica_settings
from dsv4_serve.entrypoint.containers.daemon import CONFIGURATION
from dsv4_serve.entrypoint.containers.deployment import Deployment


@pytest.fixture
def deployment(tmp_path) -> Deployment:
    (tmp_path / "key").write_text("sesame")
    (tmp_path / "weights").mkdir()
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/mine.toml").write_text("")
    return Deployment(
        groups=((0, 2), (1, 3)),
        key_file=tmp_path / "key",
        weights=tmp_path / "weights",
        profiles=(tmp_path / "profiles",),
        env={"PROFILE": "524k"},
        requests=8,
    )


def replica(deployment, index=0, image="sha256:1", podman=False):
    return replica_settings(deployment, index, image, podman=podman)


def configuration(body):
    return body["Labels"][CONFIGURATION]


def test_docker_gets_gpus_by_index(deployment):
    requested = replica(deployment, 1)["HostConfig"]["DeviceRequests"]
    assert requested == [{"DeviceIDs": ["1", "3"], "Capabilities": [["gpu"]]}]


def test_podman_gets_gpus_by_their_cdi_names(deployment):
    requested = replica(deployment, 1, podman=True)["HostConfig"]["DeviceRequests"]
    assert requested == [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=1", "nvidia.com/gpu=3"]}]


def test_a_replica_on_cpus_asks_for_no_device_and_no_limits(deployment):
    host = replica(replace(deployment, groups=((),)))["HostConfig"]
    assert "DeviceRequests" not in host
    assert "Ulimits" not in host


def test_containers_can_do_nothing_that_they_need_not(deployment):
    for body in (replica(deployment), balancer_settings(deployment, "sha256:2")):
        host = body["HostConfig"]
        assert body["User"] == "2000:0"
        assert host["ReadonlyRootfs"] is True
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges"]
        assert host["NetworkMode"] == "dsv4"
        assert not {"IpcMode", "PidMode", "Privileged", "CapAdd"} & set(host)
        assert all(mount["ReadOnly"] for mount in host["Mounts"] if mount["Type"] == "bind")


def test_memory_and_pids_have_limits(deployment):
    def limits(body):
        return body["HostConfig"]["Memory"] / 2**30, body["HostConfig"]["PidsLimit"]

    assert limits(replica(deployment)) == (96, 16384)
    assert limits(replica(replace(deployment, groups=((0, 1, 2, 3),)))) == (160, 16384)
    assert limits(replica(replace(deployment, memory=2**30, pids=7))) == (1, 7)
    assert limits(balancer_settings(deployment, "sha256:2")) == (1, 1024)


def test_only_the_api_is_reached_from_other_hosts(deployment):
    bodies = [replica(deployment), balancer_settings(deployment, "sha256:2")]
    outside = {
        (port, bound["HostPort"])
        for body in bodies
        for port, bounds in body["HostConfig"]["PortBindings"].items()
        for bound in bounds
        if bound.get("HostIp") != "127.0.0.1"
    }
    assert outside == {("8000/tcp", "8000")}


def test_no_secret_is_among_the_settings(deployment):
    assert "sesame" not in str([replica(deployment), balancer_settings(deployment, "sha256:2")])


def test_a_certificate_and_its_key_are_mounted_and_a_new_one_makes_a_new_balancer(deployment, tmp_path):
    files = (tmp_path / "tls.crt", tmp_path / "tls.key")
    for file in files:
        file.write_text("PEM")
    secured = replace(deployment, certificate=files)
    body = balancer_settings(secured, "sha256:2")
    assert "BALANCER_CERTIFICATE=/run/certificates/tls.crt" in body["Env"]
    mounts = {mount["Target"]: mount["Source"] for mount in body["HostConfig"]["Mounts"]}
    assert [mounts[f"/run/certificates/{file.name}"] for file in files] == [str(file) for file in files]
    assert configuration(body) != configuration(balancer_settings(deployment, "sha256:2"))
    files[1].write_text("another PEM")
    assert configuration(balancer_settings(secured, "sha256:2")) != configuration(body)


def test_folders_keep_their_paths_so_that_a_model_is_named_alike_inside_and_outside(deployment):
    body = replica(deployment)
    mounts = {mount["Target"]: mount["Source"] for mount in body["HostConfig"]["Mounts"]}
    assert mounts[str(deployment.weights)] == str(deployment.weights)
    assert f"DSV4_PROFILES={deployment.profiles[0]}" in body["Env"]


def test_each_replica_keeps_its_own_record_on_the_shared_cache(deployment):
    folders = [
        word for index in (0, 1) for word in replica(deployment, index)["Env"] if word.startswith("DSV4_RUN_DIR")
    ]
    assert folders == [f"DSV4_RUN_DIR=/var/cache/dsv4/run/dsv4-replica-{index}" for index in (0, 1)]


def test_the_same_settings_have_the_same_configuration(deployment):
    assert configuration(replica(deployment)) == configuration(replica(deployment))


@pytest.mark.parametrize(
    "change",
    [{"env": {"PROFILE": "128k"}}, {"flags": ("--max-num-seqs", "4")}, {"groups": ((0, 1), (2, 3))}, {"weights": None}],
)
def test_other_settings_have_another_configuration(deployment, change):
    assert configuration(replica(replace(deployment, **change))) != configuration(replica(deployment))


def test_another_image_of_the_same_name_is_another_configuration(deployment):
    assert configuration(replica(deployment, image="sha256:9")) != configuration(replica(deployment))


@pytest.mark.parametrize("name", ["mine.toml", "hardware/mine-kernels/humming_moe,E=256,N=1.json"])
def test_a_profile_that_was_written_anew_is_another_configuration(deployment, tmp_path, name):
    file = tmp_path / "profiles" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    before = configuration(replica(deployment))
    os.utime(file, ns=(1, 1))
    assert configuration(replica(deployment)) != before


def test_the_lock_of_an_editor_beside_a_profile_is_no_error(deployment, tmp_path):
    before = configuration(replica(deployment))
    (tmp_path / "profiles/.#mine.toml").symlink_to("user@host.1234:1")
    (tmp_path / "profiles/odd.json").mkdir()
    assert configuration(replica(deployment)) == before


def test_a_key_file_is_another_configuration_only_when_it_was_replaced(deployment, tmp_path):
    key, settings = tmp_path / "key", (replica, lambda made: balancer_settings(made, "sha256:2"))
    before = [configuration(make(deployment)) for make in settings]
    key.write_text("alice another-key-0123456789\n")  # a running container reads it again
    assert [configuration(make(deployment)) for make in settings] == before
    (tmp_path / "new").write_text("sesame")
    (tmp_path / "new").rename(key)  # a running container still has the old file
    assert all(configuration(make(deployment)) != was for make, was in zip(settings, before, strict=True))


def test_the_balancer_lets_as_many_requests_wait_at_a_replica_as_run(deployment):
    assert "REPLICA_MAXCONN=16" in balancer_settings(deployment, "sha256:2")["Env"]
    unknown = balancer_settings(replace(deployment, requests=0), "sha256:2")["Env"]
    assert not [word for word in unknown if word.startswith("REPLICA_MAXCONN")]


def test_folders_of_kernel_packs_are_mounted_read_only(deployment, tmp_path):
    body = replica(replace(deployment, kernels=(tmp_path,)))
    [mount] = [mount for mount in body["HostConfig"]["Mounts"] if mount["Target"] == str(tmp_path)]
    assert mount["ReadOnly"]
