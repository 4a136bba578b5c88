"""The draft gate: what the counts mean, and real vLLM with drafts that fit and drafts that never come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.client import vllm as vllm_client
from dsv4_serve.entrypoint.client.errors import Refused, Unreachable
from dsv4_serve.entrypoint.client.local_replica import ServeProcess
from dsv4_serve.entrypoint.client.vllm import VllmClient
from dsv4_serve.entrypoint.draft_floors import Floors
from dsv4_serve.healthcheck import gate
from dsv4_serve.healthcheck.positions import collapses
from dsv4_serve.healthcheck.prompts import prompts
from dsv4_serve.healthcheck.state import Acceptance, Finding
from tests.support.http_servers import http_servers
from tests.support.running_demo import Demo


def run(url: str, floor: float, tokens: int) -> tuple[Finding, Acceptance]:
    async def ask() -> tuple[Finding, Acceptance]:
        engine = VllmClient(url)
        try:
            return await gate.run(engine, Floors(floor, (min(floor, 0.4), min(floor, 0.2))), tokens)
        finally:
            await engine.close()

    return asyncio.run(ask())


class Drafting:
    """What a server of vLLM's API answers: of 20 draft tokens for the n-th prompt, it accepts n."""

    def __init__(self, drafted: int, accepted: int) -> None:
        self.drafted, self.accepted = drafted, accepted
        self.requests: list[tuple[str, int]] = []

    def answer(self, path: str, body: bytes) -> str:
        if path == "/metrics":
            return (
                f'vllm:spec_decode_num_drafts_total{{engine="0"}} {self.drafted // 2}\n'
                f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{engine="0",position="0"}} {self.accepted}\n'
                f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{engine="0",position="1"}} 0\n'
                f'vllm:spec_decode_num_draft_tokens_total{{engine="0"}} {self.drafted}\n'
                f'vllm:spec_decode_num_accepted_tokens_total{{engine="0"}} {self.accepted}\n'
            )
        if path == "/v1/models":
            return '{"data": [{"id": "m"}]}'
        request = json.loads(body)
        self.requests.append((request["prompt"], request["max_tokens"]))
        self.drafted += 20
        self.accepted += len(self.requests)
        return '{"choices": [{"text": "t", "token_ids": [1]}]}'


@contextmanager
def serving(drafting: Drafting) -> Iterator[str]:
    class Counting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = drafting.answer(self.path, body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_POST(self) -> None:
            self.do_GET()

    with http_servers() as start:
        yield start(Counting)


def test_only_what_its_own_prompts_drafted_counts_and_each_kind_for_itself(monkeypatch):
    monkeypatch.setattr(vllm_client, "SETTLE_SECONDS", 0.001)
    drafting = Drafting(drafted=1000, accepted=990)
    with serving(drafting) as url:
        finding, total = run(url, 0.2, 7)
    assert drafting.requests == [(prompt.text, 7) for prompt in prompts()]
    count = len(prompts())
    accepted_in_all = count * (count + 1) // 2
    assert total == Acceptance(20 * count, accepted_in_all, 10 * count, (accepted_in_all, 0))
    by_kind: dict[str, list[int]] = {}
    for number, prompt in enumerate(prompts(), 1):
        by_kind.setdefault(prompt.kind, []).append(number)
    assert all(len(set(accepted)) > 1 for accepted in by_kind.values())  # so that a sum differs from its parts
    for kind, accepted in by_kind.items():
        assert f"{kind} {sum(accepted) / (20 * len(accepted)):.0%}" in finding.detail
    assert "; by position 55%, 0% of 100 drafts" in finding.detail
    assert "collapses after position 0" in finding.problem


@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_it_refuses_exactly_what_is_below_the_floor(drafted, share, floor):
    total = Acceptance(drafted, int(drafted * share))
    assert bool(gate.judge(total, {}, Floors(floor)).problem) == (total.ratio < floor)


def test_a_pass_names_the_figures_of_each_kind():
    found = gate.judge(Acceptance(200, 150), {"prose": Acceptance(100, 60), "code": Acceptance(100, 90)}, Floors(0.4))
    assert found == Finding("75% of 200 draft tokens accepted, the floor is 40% (prose 60%, code 90%)")


@pytest.mark.parametrize(
    ("accepted", "verdict"),
    [(0, "drafts noise"), (9, "drafts noise"), (10, "too few for a sound"), (39, "too few for a sound")],
)
def test_a_failure_says_how_bad_where_to_look_and_the_way_out(accepted, verdict):
    problem = gate.judge(Acceptance(100, accepted), {}, Floors(0.4)).problem
    for words in (
        f"{accepted}% of 100",
        "the floor is 40%",
        verdict,
        "mtp.*",
        "dsv4 patch verify",
        "NUM_SPECULATIVE_TOKENS=0",
    ):
        assert words in problem


THREE = Floors(0.25, (0.4, 0.2, 0.15))


def counted(drafts: int, *at: int) -> Acceptance:
    """Counts of drafts that have a token for each position."""
    return Acceptance(drafts * len(at), sum(at), drafts, at)


def test_a_pass_names_the_share_of_each_position():
    found = gate.judge(counted(200, 180, 150, 120), {}, THREE)
    assert found == Finding(
        "75% of 600 draft tokens accepted, the floor is 25%; by position 90%, 75%, 60% of 200 drafts"
    )


@pytest.mark.parametrize("at", [(190, 0, 0), (190, 30, 10)])
def test_a_collapse_after_the_first_token_is_refused_in_one_sentence_whatever_the_total(at):
    acceptance = counted(200, *at)
    problem = gate.judge(acceptance, {}, THREE).problem
    assert acceptance.accepted > THREE.total * acceptance.drafted
    assert "it collapses after position 0: the first token of a draft is right" in problem
    assert "NUM_SPECULATIVE_TOKENS=1" in problem


def test_one_position_below_its_floor_is_refused_and_named():
    problem = gate.judge(counted(200, 180, 140, 20), {}, THREE).problem
    assert "too few at position 2 (10%, floor 15%)" in problem
    assert "collapses" not in problem


def test_a_drafter_that_is_bad_from_its_first_token_is_noise_and_no_collapse():
    problem = gate.judge(counted(200, 10, 0, 0), {}, THREE).problem
    assert "drafts noise" in problem
    assert "collapses" not in problem


def test_a_position_is_judged_only_with_enough_drafts():
    assert not gate.judge(counted(20, 18, 15, 0), {}, THREE).problem  # 3 accepted at its floor
    assert not collapses(counted(10, 10, 0, 0), THREE)  # 3.5
    assert collapses(counted(200, 190, 0, 0), THREE, least=400)
    assert not collapses(counted(200, 190, 0, 0), THREE, least=401)


def test_one_draft_token_cannot_collapse_and_a_floor_of_zero_accepts_any_drafter():
    assert not collapses(counted(900, 500), Floors(0.4, (0.4,)))
    assert not gate.judge(counted(900, 900, 0, 0), {}, Floors(0.0, (0.0, 0.0, 0.0))).problem


@given(st.lists(st.integers(0, 7), min_size=1, max_size=60), st.integers(1, 7))
def test_the_tokens_after_the_first_are_counted_right_for_drafts_of_any_length(accepted, length):
    """With k by load drafts differ in length; vLLM counts drafts and tokens, not drafts of each length."""
    drafts = [(length if n % 2 else 1, a) for n, a in enumerate(accepted)]
    taken = [min(tokens, a) for tokens, a in drafts]
    at = tuple(sum(t > position for t in taken) for position in range(7))
    later = Acceptance(sum(tokens for tokens, _ in drafts), sum(taken), len(drafts), at).later
    assert later.drafted == sum(tokens - 1 for tokens, _ in drafts)
    assert later.accepted == sum(max(0, t - 1) for t in taken)


def test_a_server_that_refuses_has_no_measurement():
    class Refusing:
        async def settled_counters(self):
            raise Refused("HTTP 500")

    client: Any = Refusing()
    finding, acceptance = asyncio.run(gate.run(client, THREE, 8))
    problem = "a test prompt was refused (HTTP 500), so the drafter could not be measured; see vLLM's log"
    assert (finding, acceptance) == (Finding("not measured", problem), Acceptance(0, 0))


def test_drafts_of_one_token_have_no_positions_to_name():
    assert "by position" not in gate.judge(counted(200, 150), {}, Floors(0.4, (0.4,))).detail
    assert "by position" in gate.judge(counted(200, 150, 100), {}, Floors(0.4, (0.4, 0.2))).detail


def test_positions_that_were_never_drafted_are_not_judged():
    assert not gate.judge(counted(200, 180, 150), {}, THREE).problem


def test_a_position_is_judged_from_ten_accepted_at_its_floor_on_and_may_be_at_it():
    half = Floors(0.4, (0.5,))
    assert "position 0 (45%, floor 50%)" in gate.judge(counted(20, 9), {}, half).problem
    assert not gate.judge(counted(19, 9), {}, half).problem
    assert not gate.judge(counted(20, 10), {}, half).problem


def test_a_collapse_is_judged_from_ten_accepted_at_its_floor_on():
    halves = Floors(0.4, (0.9, 0.5))
    assert collapses(counted(20, 18, 9), halves)
    assert not collapses(counted(19, 19, 9), halves)  # 9.5 at its floor
    assert not collapses(counted(20, 18, 10), halves)  # as good as its floor
    assert not collapses(counted(20, 17, 9), halves)  # the first token is bad too


def test_no_drafts_and_no_counters_are_distinguished():
    assert "nothing was drafted" in gate.judge(Acceptance(0, 0), {}, Floors(0.4)).problem
    assert "no vllm:spec_decode_* counters" in gate.judge(Acceptance(0, 0), {}, Floors(0.4), counted=False).problem


def test_a_floor_of_zero_still_requires_drafts():
    assert gate.judge(Acceptance(0, 0), {}, Floors(0.0)).problem


def test_a_refused_prompt_is_a_problem_and_a_server_that_is_gone_is_unreachable(answering):
    finding, acceptance = run(answering(500, "no"), 0.4, 8)
    assert "/metrics: HTTP 500" in finding.problem
    assert acceptance == Acceptance(0, 0)
    with pytest.raises(Unreachable):
        run("http://127.0.0.1:1", 0.4, 8)


@pytest.mark.slow
def test_real_drafts_that_match_pass_and_every_kind_is_reported(vllm: Demo):
    finding, acceptance = run(vllm.endpoint.url, 0.5, 48)
    assert finding.problem == ""
    assert acceptance.drafted > 100
    assert acceptance.accepted > 0.9 * acceptance.drafted
    for kind in ("prose", "code", "arithmetic", "lists", "other languages"):
        assert f"{kind} 9" in finding.detail


@pytest.mark.slow
def test_real_drafts_below_the_floor_are_refused_with_their_figures(vllm: Demo):
    finding, acceptance = run(vllm.endpoint.url, 0.99, 48)
    assert f"of {acceptance.drafted} draft tokens accepted, the floor is 99%" in finding.problem


@pytest.mark.slow
def test_a_real_engine_whose_drafts_never_come_is_refused(broken: ServeProcess):
    finding, acceptance = run(broken.endpoint.url, 0.1, 8)
    assert (acceptance.drafted, acceptance.accepted, acceptance.drafts) == (0, 0, 0)
    assert finding.problem.startswith("nothing was drafted")
