"""What each stage says of an engine that is sound, and of one that is not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.bench import kernel_prebuild
from dsv4_serve.entrypoint.client import local_replica
from dsv4_serve.entrypoint.client.local_replica import ReplicaEnded
from dsv4_serve.entrypoint.doctor.all_reduce.result import AllReduceResult, AllReduceTiming
from dsv4_serve.entrypoint.doctor.report import Diagnosis, DoctorReport
from dsv4_serve.entrypoint.problem import Problem
from dsv4_serve.entrypoint.qualify.box import Box
from dsv4_serve.entrypoint.qualify.sizes import Sizes
from dsv4_serve.entrypoint.qualify.small import SmallReplica
from dsv4_serve.entrypoint.qualify.stages import all_reduce, depth, faults, full_size, load
from dsv4_serve.entrypoint.qualify.stages.host import host
from dsv4_serve.entrypoint.qualify.stages.known_answers import known_answers
from tests.entrypoint.qualify.engine import changed_under_load, short_sighted, sound

Replicas = Callable[..., SmallReplica]


def test_a_sound_engine_passes(box: Box, replica_of: Replicas) -> None:
    replica = replica_of(sound, at_once=4)
    found = [known_answers(box, replica), load.load(box, replica), depth.depth(box, replica)]
    assert [one.verdict for one in found] == ["passed"] * 3, found
    assert found[0].figures == {"right": 32, "asked": 32, "drafted": 32, "accepted": 32, "layout": "bf16"}
    assert found[1].figures["at_once"] == 4
    assert [one["tokens"] for one in found[2].figures["soundings"]] == [408] * 3 + [2452] * 3


def test_a_wrong_answer_fails(box: Box, replica_of: Replicas) -> None:
    outcome = known_answers(box, replica_of(lambda _prompt, _running: 2))
    assert outcome.verdict == "failed"
    assert "of 32 tokens are the known ones" in outcome.seen


@pytest.mark.parametrize(("accepts", "verdict"), [(0.0, "failed"), (0.9, "failed"), (0.97, "passed")])
def test_a_drafter_of_noise_fails_though_the_answers_are_right(
    box: Box, replica_of: Replicas, accepts: float, verdict: str
) -> None:
    outcome = known_answers(box, replica_of(sound, accepts=accepts))
    assert outcome.verdict == verdict
    assert ("draft head computes noise" in outcome.seen) == (verdict == "failed")


def test_answers_that_change_under_load_fail(box: Box, replica_of: Replicas) -> None:
    replica = replica_of(changed_under_load, at_once=4)
    assert known_answers(box, replica).verdict == "passed"
    outcome = load.load(box, replica)
    assert (outcome.verdict, outcome.figures["changed"]) == ("failed", 4)
    assert "4 of 4 answers change with 4 requests at once, first 5 tokens: token 1 of 48" in outcome.seen


@pytest.mark.parametrize(("shift", "verdict"), [(0.2, "failed"), (0.05, "passed")])
def test_log_probabilities_may_differ_a_little_under_load(
    box: Box, replica_of: Replicas, shift: float, verdict: str
) -> None:
    outcome = load.load(box, replica_of(sound, at_once=4, shift=shift))
    assert outcome.verdict == verdict
    assert outcome.figures["largest_logprob_difference"] == pytest.approx(shift)


def test_one_request_at_a_time_is_not_compared(box: Box, replica_of: Replicas) -> None:
    plan = replace(box.plan, flags={**box.plan.flags, "max-num-seqs": replace(box.plan.flags["max-num-seqs"], value=1)})
    assert load.load(replace(box, plan=plan), replica_of(sound)).verdict == "skipped"


def test_an_answer_that_ignores_the_far_end_fails_at_depth_alone(box: Box, replica_of: Replicas) -> None:
    replica = replica_of(short_sighted, at_once=4)
    assert known_answers(box, replica).verdict == load.load(box, replica).verdict == "passed"
    outcome = depth.depth(box, replica)
    assert outcome.verdict == "failed"
    assert "the answer to 408 tokens, key at " in outcome.seen
    assert len(outcome.figures["soundings"]) == 1


def test_prompts_reach_the_plans_context() -> None:
    assert depth.lengths(Sizes(), 524_288) == [10_485, 52_427, 131_068, 262_136, 498_058]
    assert depth.lengths(Sizes(), 400) == [300, 364]
    assert max(depth.lengths(Sizes(), 1_048_576)) > 990_000


def test_a_depth_that_time_did_not_allow_is_open(make_box: Callable[..., Box], replica_of: Replicas) -> None:
    box = make_box(seconds=60)
    first = depth.depth(box, replica_of(sound)).figures["soundings"][:1]
    assert first
    outcome = depth.judged([], [400])
    assert outcome.verdict == "inconclusive"


def test_a_stop_that_is_not_seen_fails(box: Box) -> None:
    assert faults.judged("VLLM::Worker_TP1", None, 49.0).verdict == "failed"
    assert faults.judged("VLLM::Worker_TP1", 36.2, 49.0).verdict == "passed"
    assert faults.limit(box) == 35 + 2 * 2 + faults.SLACK


def test_the_problems_of_the_doctor_are_those_of_the_host(box: Box) -> None:
    fatal = Diagnosis("driver", Problem("driver 550", "580", "install it"), of_host=True)
    note = Diagnosis("open-files", Problem("few", "", "raise it", fatal=False), of_host=True)
    assert host(replace(box, doctor=lambda: DoctorReport((note,)))).seen.endswith(
        "notes: open-files (see `dsv4 doctor`)"
    )
    outcome = host(replace(box, doctor=lambda: DoctorReport((fatal, note))))
    assert (outcome.verdict, outcome.seen, outcome.fix) == ("failed", "driver: driver 550", "install it")


def test_without_gpus_nothing_is_reduced_and_no_full_size_starts(box: Box) -> None:
    assert all_reduce.all_reduce(box).verdict == full_size.full_size(box).verdict == "skipped"


def test_the_full_size_compiles_kernels_in_many_processes_before_it_starts(
    make_box: Callable[..., Box], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    box = make_box(profile="64k", model="w4a16", hardware="h200")
    box = replace(box, environ={**box.environ, "DSV4_CACHE": str(tmp_path)}, until=time.monotonic() + 600)
    done: list[Any] = []

    def start(*_args: object) -> None:
        done.append("start")
        raise ReplicaEnded("no GPU")

    monkeypatch.setattr(kernel_prebuild, "of_plan", lambda *args: done.append(args))
    monkeypatch.setattr(local_replica, "replica", start)
    assert full_size.full_size(box).verdict == "failed"
    (selection, plan, environ, seconds), last = done
    assert (selection, plan, last) == (box.selection, box.plan, "start")
    assert environ["DSV4_CACHE"] == str(tmp_path)
    assert 500 < seconds <= 600


def test_no_full_size_starts_in_the_time_that_compilers_have_left(
    make_box: Callable[..., Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = make_box(profile="64k", model="w4a16", hardware="h200")
    left, starts = [full_size.LEAST], list[Any]()
    monkeypatch.setattr(Box, "remaining", property(lambda _: left[-1]))
    monkeypatch.setattr(kernel_prebuild, "of_plan", lambda *_args: left.append(full_size.LEAST - 1))
    monkeypatch.setattr(local_replica, "replica", lambda *args: starts.append(args))
    outcome = full_size.full_size(box)
    assert (outcome.verdict, starts) == ("inconclusive", [])
    assert "at least 120 s" in outcome.seen
    assert "compiled kernels are kept" in outcome.fix


def test_a_full_size_that_ends_when_the_time_is_over_says_nothing_about_it(
    make_box: Callable[..., Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    box, left = make_box(profile="64k", model="w4a16", hardware="h200"), [full_size.LEAST]
    monkeypatch.setattr(Box, "remaining", property(lambda _: left[-1]))
    monkeypatch.setattr(kernel_prebuild, "of_plan", lambda *_args: None)

    def start(*args: object) -> None:
        assert args[-1] == full_size.LEAST
        left.append(0.0)
        raise ReplicaEnded("it was not ready")

    monkeypatch.setattr(local_replica, "replica", start)
    outcome = full_size.full_size(box)
    assert (outcome.verdict, outcome.seen, outcome.fix) == ("inconclusive", "it was not ready", full_size.AGAIN)


def test_memory_outside_of_the_estimate_fails(make_box: Callable[..., Box]) -> None:
    from dsv4_serve.entrypoint.memory import advice
    from dsv4_serve.entrypoint.resolve import memory_inputs

    box = make_box(profile="64k", model="w4a16", hardware="h200")
    memory = memory_inputs.estimate(box.selection, box.plan.flags)
    assert memory
    fit = advice.fit(memory)
    rows = [{"batch": 1, "output_tokens_per_second": 211.0}]
    near = full_size.judged(rows, fit.kv_available_gib + 0.1, fit, {}, "dummy weights")
    far = full_size.judged(rows, fit.kv_available_gib + fit.uncertainty_gib + 1, fit, {}, "dummy weights")
    assert (near.verdict, far.verdict) == ("passed", "failed")
    assert near.seen.startswith("211 for 1 output tok/s")


def test_an_all_reduce_that_hangs_fails_and_one_that_ran_out_of_time_is_open() -> None:
    timings = (AllReduceTiming(1024, 1e-5, 1e8), AllReduceTiming(1 << 26, 4e-4, 1.6e11))
    good = all_reduce.judged(AllReduceResult(True, 2, "nccl", 9.0, timings))
    assert (good.verdict, good.seen) == ("passed", "2 ranks, 160.0 GB/s at most")
    hung = AllReduceResult(False, 2, "nccl", 15.0, hung_at="init", behind=(1,))
    assert all_reduce.judged(hung).verdict == "failed"
    assert all_reduce.judged(AllReduceResult(False, 2, "nccl", 20.0, ran_out_at="init")).verdict == "inconclusive"
