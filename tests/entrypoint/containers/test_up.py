"""`dsv4 up`, `status`, `logs` and `down` with a real engine, real containers and the real HAProxy configuration."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from dsv4_serve.entrypoint.containers import logs
from dsv4_serve.entrypoint.containers.containers import BALANCER, CACHE_FOLDER, name_of
from dsv4_serve.entrypoint.containers.down import down
from dsv4_serve.entrypoint.containers.status import status
from dsv4_serve.entrypoint.containers.up import up
from dsv4_serve.entrypoint.errors import ConfigError, HostError
from tests.support.patience import slowness

from .conftest import KEY, Deployment

pytestmark = pytest.mark.slow


class Log(list):
    """What was printed for the user."""

    def __call__(self, line: str) -> None:
        self.append(line)

    def __contains__(self, part: object) -> bool:
        return any(str(part) in line for line in self)


def ask(deployment: Deployment, tokens: int = 1, stream: bool = False, key: str = KEY) -> httpx.Response:
    return httpx.post(
        f"http://127.0.0.1:{deployment.port}/v1/completions",
        json={"model": "demo", "prompt": "a", "max_tokens": tokens, "stream": stream},
        headers={"Authorization": f"Bearer {key}"},
        timeout=60 * slowness(),
        trust_env=False,
    )


@contextmanager
def load(deployment: Deployment) -> Iterator[list[int]]:
    """Ask without a pause from four clients; yields the statuses so far, 0 for a connection that broke."""
    statuses: list[int] = []
    over = threading.Event()

    def client() -> None:
        while not over.is_set():
            try:
                statuses.append(ask(deployment, tokens=20).status_code)
            except httpx.HTTPError:
                statuses.append(0)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for one in clients:
        one.start()
    try:
        yield statuses
    finally:
        over.set()
        for one in clients:
            one.join()


def identities(daemon) -> dict[str, str]:
    return {name: one.id for name, one in daemon.ours().items()}


def test_two_replicas_get_ready_behind_the_balancer_and_are_gone_after_down(daemon, deployment_of):
    deployment, log = deployment_of(), Log()
    up(daemon, deployment, log)
    assert "dsv4-replica-0 ready, dsv4-replica-1 ready" in log
    assert ask(deployment).status_code == 200
    assert ask(deployment, key="wrong").status_code == 401
    found = {one.name: one for one in status(daemon)}
    assert all(one.ready for one in found.values())
    assert set(found) == {name_of(0), name_of(1), BALANCER}
    assert found[name_of(0)].acceptance.startswith("100% of ")
    down(daemon, log)
    assert daemon.ours() == {}
    assert [network.name for network in daemon.client.networks.list(names=["dsv4"]) if network.name == "dsv4"] == []


def test_a_second_up_leaves_everything_alone(daemon, deployment_of):
    up(daemon, deployment_of(), Log())
    before, log = identities(daemon), Log()
    up(daemon, deployment_of(), log)
    assert identities(daemon) == before
    assert [line.partition(" is unchanged")[0] for line in log if "is unchanged" in line] == [
        name_of(0),
        name_of(1),
        BALANCER,
    ]


def test_changed_replicas_are_replaced_one_at_a_time_and_no_request_fails(daemon, deployment_of):
    up(daemon, deployment_of(), Log())
    before, log = identities(daemon), Log()
    changed = deployment_of(env={"MAX_NUM_SEQS": "3"})
    with load(changed) as statuses:
        up(daemon, changed, log)
        time.sleep(1)
    after = identities(daemon)
    assert all(after[name_of(index)] != before[name_of(index)] for index in (0, 1))
    assert after[BALANCER] == before[BALANCER]
    assert len(statuses) > 20
    assert set(statuses) == {200}
    ready = next(number for number, line in enumerate(log) if line == f"{name_of(0)} ready")
    assert ready < next(number for number, line in enumerate(log) if line.startswith(f"stopping {name_of(1)}"))


def test_fewer_replicas_leave_the_others_alone(daemon, deployment_of):
    up(daemon, deployment_of(), Log())
    before = identities(daemon)
    up(daemon, deployment_of(replicas=1), Log())
    assert identities(daemon) == {name: before[name] for name in (name_of(0), BALANCER)}


def test_down_lets_a_running_stream_end_whole(daemon, deployment_of):
    deployment = deployment_of(replicas=1, env={"STAND_IN_SECONDS": "0.05"})
    up(daemon, deployment, Log())
    answers: list[httpx.Response] = []
    client = threading.Thread(target=lambda: answers.append(ask(deployment, tokens=120, stream=True)))
    client.start()
    time.sleep(0.5)
    down(daemon, Log())
    client.join()
    assert answers[0].text.count("w") == 120
    assert answers[0].text.rstrip().endswith("[DONE]")


def test_containers_run_as_hardened_as_they_were_created(daemon, deployment_of):
    up(daemon, deployment_of(replicas=1), Log())
    for name in (name_of(0), BALANCER):
        container = daemon.client.containers.get(name)
        result = container.exec_run(
            ["sh", "-c", "grep -E '^(CapEff|CapBnd|NoNewPrivs|Uid)' /proc/1/status; touch /usr/x"]
        )
        fields = result.output.decode().split()
        assert fields[fields.index("Uid:") + 1] == "2000"
        assert {fields[fields.index(f"{cap}:") + 1] for cap in ("CapEff", "CapBnd")} == {"0" * 16}
        assert fields[fields.index("NoNewPrivs:") + 1] == "1"
        assert "Read-only file system" in result.output.decode()


def test_a_replica_keeps_its_record_on_the_cache_volume(daemon, deployment_of):
    up(daemon, deployment_of(replicas=1), Log())
    result = daemon.client.containers.get(name_of(0)).exec_run(f"cat {CACHE_FOLDER}/run/{name_of(0)}/starts.json")
    assert b'"starts"' in result.output


def test_a_replica_that_cannot_start_ends_the_wait_with_its_own_message(daemon, deployment_of):
    with pytest.raises(HostError, match=r"dsv4-replica-0 ended before it was ready.*: dsv4: .*524kk"):
        up(daemon, deployment_of(replicas=1, env={"PROFILE": "524kk"}), Log())


def test_a_broken_change_stops_at_the_first_replica_and_the_other_goes_on_serving(daemon, deployment_of):
    up(daemon, deployment_of(), Log())
    before = identities(daemon)
    with pytest.raises(HostError, match="dsv4-replica-0 ended before it was ready"):
        up(daemon, deployment_of(env={"PROFILE": "524kk"}), Log())
    assert identities(daemon)[name_of(1)] == before[name_of(1)]
    assert ask(deployment_of()).status_code == 200


def test_without_waiting_it_comes_back_at_once(daemon, deployment_of):
    log = Log()
    up(daemon, deployment_of(replicas=1), log, wait=False)
    assert "ready" not in log
    assert daemon.client.containers.get(name_of(0)).status == "running"


def test_a_replica_that_was_stopped_by_hand_is_started_again(daemon, deployment_of):
    up(daemon, deployment_of(replicas=1), Log())
    daemon.client.containers.get(name_of(0)).kill()
    up(daemon, deployment_of(replicas=1), Log())
    assert all(one.ready for one in status(daemon))


def test_a_killed_replica_is_not_ready_in_the_status_and_the_others_are(daemon, deployment_of):
    up(daemon, deployment_of(), Log())
    daemon.client.containers.get(name_of(1)).kill()
    found = {one.name: one for one in status(daemon)}
    assert (found[name_of(0)].ready, found[name_of(1)].ready) == (True, False)


def test_a_container_of_someone_else_is_not_touched(daemon, deployment_of):
    foreign = daemon.client.containers.create(deployment_of().image, ["serve"], name=name_of(0))
    try:
        with pytest.raises(HostError, match="Container dsv4-replica-0 exists, but `dsv4 up` did not create it"):
            up(daemon, deployment_of(), Log())
        down(daemon, Log())
        assert daemon.client.containers.get(foreign.id)
        assert list(daemon.containers()) == [name_of(0)] or BALANCER not in daemon.containers()
    finally:
        foreign.remove(force=True)


def test_an_image_that_is_not_here_is_refused_before_anything_is_made(daemon, deployment_of):
    with pytest.raises(HostError, match=r"Image no-such is not on this host; build it \(docker build -t no-such \.\)"):
        up(daemon, deployment_of(image="no-such"), Log())
    assert daemon.ours() == {}


def test_a_port_in_use_is_reported_in_one_sentence(daemon, deployment_of):
    deployment = deployment_of(replicas=1)
    with subprocess.Popen(["python3", "-m", "http.server", str(deployment.port)], stderr=subprocess.DEVNULL) as holder:
        try:
            time.sleep(1)
            with pytest.raises(HostError, match=rf"dsv4-balancer cannot be started: .*{deployment.port}"):
                up(daemon, deployment, Log())
        finally:
            holder.terminate()


def test_logs_name_the_container_where_there_are_several(daemon, deployment_of):
    up(daemon, deployment_of(), Log())
    several = list(logs.lines(daemon, None))
    assert {line.partition(" | ")[0] for line in several} == {name_of(0), name_of(1), BALANCER}
    one = list(logs.lines(daemon, "1", tail=2))
    assert len(one) == 2
    assert all(line.startswith("dsv4: ") for line in one), one
    with pytest.raises(
        ConfigError, match=r"`dsv4 up` started no dsv4-replica-7; it started dsv4-balancer, dsv4-replica-0"
    ):
        list(logs.lines(daemon, "7"))


def test_followed_logs_go_on_until_the_containers_end(daemon, deployment_of):
    up(daemon, deployment_of(), Log())
    found: list[str] = []
    follower = threading.Thread(target=lambda: found.extend(logs.lines(daemon, None, follow=True)))
    follower.start()
    time.sleep(1)
    down(daemon, Log())
    follower.join(timeout=20 * slowness())
    assert not follower.is_alive()
    assert [line for line in found if line.startswith(name_of(0)) and "drain" in line]
