"""What clients notice of a replica that is killed, hangs, drains or comes back: under load, with the times as shipped, but for the grace of a hung engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter

import psutil
import pytest

from tests.deploy.pair import MakePair, Pair
from tests.support.load import client, load, stream
from tests.support.patience import slowness

pytestmark = [pytest.mark.process, pytest.mark.slow]
ONE, OTHER = "127.0.0.2", "127.0.0.3"
GRACE = 10.0  # seconds; 35 is shipped
OUT, BACK = (
    GRACE + 20.0,
    10.0,
)  # until a hung replica leaves rotation, after polls and HAProxy's checks, and a ready one enters


def members(pair: Pair, address: str) -> list[psutil.Process]:
    """A replica as a whole: supervisor and engine."""
    running = pair.replicas[address]
    return [psutil.Process(running.process.pid), *running.family()]


def report(capsys: pytest.CaptureFixture[str], what: str, **seconds: float) -> None:
    with capsys.disabled():
        print(f"\n{what}: " + ", ".join(f"{name.replace('_', ' ')} {value:.1f} s" for name, value in seconds.items()))


def test_a_drain_fails_no_request(make_pair: MakePair, capsys: pytest.CaptureFixture[str]) -> None:
    with make_pair() as pair:
        with load(pair.balancer.url) as running:
            time.sleep(2)
            began = time.monotonic()
            pair.replicas[ONE].stop()
            out = pair.until_up(OTHER, seconds=5)
            status, ended = pair.replicas[ONE].until_ended(30)
            pair.names.running.remove(ONE)  # as Docker's DNS does
            time.sleep(2)
        report(capsys, f"drain, {len(running.outcomes)} requests, 0 failed", out_of_rotation=out, ended=ended + out)
        assert status == 0
        assert running.failed() == []
        late = [one for one in running.outcomes if one.replica == ONE and one.began > began + out + 0.5]
        assert late == []
        assert len(running.outcomes) > 20


def test_a_kill_fails_only_what_was_in_flight_there(make_pair: MakePair, capsys: pytest.CaptureFixture[str]) -> None:
    with make_pair() as pair:
        with load(pair.balancer.url) as running:
            time.sleep(2)
            family = members(pair, ONE)
            for process in family:
                process.kill()
            psutil.wait_procs(family, timeout=5 * slowness())
            killed = time.monotonic()
            out = pair.until_up(OTHER, seconds=10)
            time.sleep(1)
        failed = running.failed()
        report(capsys, f"kill, {len(running.outcomes)} requests, {len(failed)} failed", out_of_rotation=out)
        assert [one for one in failed if one.began > killed] == []
        assert {one.replica for one in failed} <= {ONE, ""}
        assert len(failed) <= 8  # the clients

        pair.add(ONE).until(lambda: pair.ready(ONE), 60, "ready again")
        back = pair.until_up(ONE, OTHER, seconds=BACK)
        report(capsys, "started again", in_rotation_after_ready=back)


def test_sessions_of_a_killed_replica_go_to_the_other_at_once_although_it_has_its_share(make_pair: MakePair) -> None:
    """Bounded load alone would send them to the dead one, which holds nothing, until a health check fails."""

    async def streams(url: str) -> None:
        async with client(url) as asking:
            await asyncio.gather(*(stream(asking, 300, f"session {number}") for number in range(20)))

    with make_pair() as pair, pair.balancer.client() as asking:
        running = threading.Thread(target=asyncio.run, args=[streams(pair.balancer.url)])
        running.start()
        time.sleep(1)
        family = members(pair, ONE)
        for process in family:
            process.kill()
        psutil.wait_procs(family, timeout=5 * slowness())  # long before the next check
        body = {"prompt": "Once", "max_tokens": 1}
        answers = [
            asking.post("/v1/completions", json=body, headers={"X-Session-ID": f"another {number}"})
            for number in range(40)
        ]
        assert Counter(answer.headers.get("x-replica", answer.text) for answer in answers) == {OTHER: 40}
        running.join()


@pytest.mark.parametrize("part", ["engine", "replica"])
def test_a_replica_that_hangs_is_out_and_comes_back(
    make_pair: MakePair, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    with make_pair(DSV4_SUPERVISE_READY_GRACE=str(GRACE)) as pair:
        stopping = [pair.replicas[ONE].api_server()] if part == "engine" else members(pair, ONE)
        with load(pair.balancer.url, clients=4) as running:
            time.sleep(2)
            for process in stopping:
                process.suspend()
            stopped = time.monotonic()
            out = pair.until_up(OTHER, seconds=OUT)
            new = time.monotonic()
            time.sleep(2)
            for process in stopping:
                process.resume()
            back = pair.until_up(ONE, OTHER, seconds=BACK)
            time.sleep(1)
        report(capsys, f"{part} hangs, {len(running.failed())} failed", out_of_rotation=out, back_after_going_on=back)
        assert {one.replica for one in running.outcomes if new < one.began < new + 1.5} <= {OTHER}
        assert [one for one in running.failed() if one.began < stopped] == []


def test_requests_go_on_while_the_balancer_cannot_ask_for_names(make_pair: MakePair) -> None:
    with make_pair(DSV4_SUPERVISE_DRAIN_WAIT="0") as pair:
        pair.names.socket.close()
        with load(pair.balancer.url, clients=2) as running:
            time.sleep(35)  # longer than HAProxy's defaults hold on
            assert pair.balancer.up() == {ONE, OTHER}
        assert running.failed() == []
