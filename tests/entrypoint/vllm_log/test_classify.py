"""From notes to an exit reason: signals, echoes, phases, and what only the end of the log explains."""

from __future__ import annotations

import re
import signal
from dataclasses import replace

import pytest

from dsv4_serve.entrypoint.process_limits import ProcessLimit
from dsv4_serve.entrypoint.vllm_log import exit_cause
from dsv4_serve.entrypoint.vllm_log.exit_cause import ExitReason, by_status, classify, explain, of_known
from dsv4_serve.entrypoint.vllm_log.known_failures import REPORT, KnownFailure, Remedy, known
from dsv4_serve.entrypoint.vllm_log.parser import LogLine
from dsv4_serve.entrypoint.vllm_log.root_cause import LogNotes
from dsv4_serve.entrypoint.vllm_log.situation import Situation
from dsv4_serve.entrypoint.vllm_log.xid import Xid

FRAMES = ("Traceback (most recent call last):", '  File "x.py", line 7, in run', "    run(1)")
UNKNOWN, ECHO = "ValueError: nobody knows", "RuntimeError: Worker failed with error 'x'"
PIPE = "BrokenPipeError: [Errno 32] Broken pipe"


def notes(*errors: str, stopped: bool = False, waiting: str = "") -> LogNotes:
    found = LogNotes(waiting=waiting)
    for error in errors:
        for text in ("EngineCore encountered a fatal error.", *FRAMES, error):
            found.feed(LogLine(text, "EngineCore", "ERROR", "core.py:1"))
    found.stopped = stopped
    return found


def found(*errors: str, status: int = 1, was_ready: bool = False, stopped: bool = False) -> ExitReason:
    return classify(notes(*errors, stopped=stopped), status, phase="loading weights", was_ready=was_ready)


def named(name: str) -> KnownFailure:
    return next(failure for failure in known() if failure.name == name)


def test_a_stop_is_clean_only_with_status_0() -> None:
    assert found(stopped=True, status=0) == ExitReason(exit_cause.DRAINED, "vLLM was stopped and shut down cleanly.")
    assert found(stopped=True, status=1).cause is exit_cause.START_FAILED
    assert found(status=0).cause is exit_cause.START_FAILED


@pytest.mark.parametrize(
    ("status", "how"),
    [
        (1, "exit status 1"),
        (-9, "SIGKILL"),
        (137, "SIGKILL"),
        (-15, "SIGTERM"),
        (-1, "SIGHUP"),
        (129, "SIGHUP"),
        (128, "exit status 128"),
    ],
)
def test_an_unknown_end_says_how_it_ended(status: int, how: str) -> None:
    assert f"vLLM ended while loading weights ({how})." in found(status=status).sentence or how.startswith("SIG")
    root = found(status=status).root
    assert root == (f"vLLM was ended by {how}" if how.startswith("SIG") else "")


@pytest.mark.parametrize(
    ("errors", "status", "root"),
    [
        ((UNKNOWN,), -9, UNKNOWN),
        ((PIPE,), -9, "vLLM was ended by SIGKILL"),  # nothing follows SIGKILL but echoes
        ((PIPE,), -6, PIPE),
        ((ECHO,), -6, "vLLM was ended by SIGABRT"),
        ((ECHO,), 1, ECHO),
    ],
)
def test_a_line_of_the_log_outranks_a_signal_unless_it_follows_from_it(
    errors: tuple[str, ...], status: int, root: str
) -> None:
    assert found(*errors, status=status).root == root


def test_an_error_that_was_survived_does_not_outrank_a_signal() -> None:
    survived = LogNotes()
    for text in ("Exception in ASGI application", *FRAMES, UNKNOWN):
        survived.feed(LogLine(text, "APIServer", "ERROR", "x.py:1"))
    assert classify(survived, -9, phase="ready", was_ready=True).root == "vLLM was ended by SIGKILL"


def test_sigterm_from_elsewhere_cuts_a_ready_replica_and_fails_a_start() -> None:
    assert found(status=-15, was_ready=True) == ExitReason(
        exit_cause.CUT, "vLLM was stopped with requests still running.", "vLLM was ended by SIGTERM"
    )
    assert found(status=-15).cause is exit_cause.START_FAILED
    assert found(UNKNOWN, status=-11, was_ready=True).cause is exit_cause.ENGINE_DIED


def test_what_nobody_knows_is_to_be_reported() -> None:
    reason = found(UNKNOWN, was_ready=True)
    assert reason.sentence == f"vLLM's engine died while serving (exit status 1). {REPORT}"
    assert (reason.root, reason.failure, reason.failed, reason.logged) == (UNKNOWN, "", True, False)


def test_a_known_failure_names_no_status_and_has_its_own_advice() -> None:
    reason = found("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB.")
    assert reason.cause is exit_cause.OUT_OF_MEMORY_AT_LOAD
    assert "exit status" not in reason.sentence
    assert reason.failure


def test_of_echoes_any_may_be_known_and_of_causes_only_the_first() -> None:
    gone = "RuntimeError: Engine core initialization failed. Failed core proc(s): {}"
    assert found(ECHO, gone).failure == found(gone).failure != ""
    assert found(UNKNOWN, "torch.OutOfMemoryError: CUDA out of memory.").failure == ""


@pytest.mark.parametrize(
    ("cause", "at_load", "later"),
    [
        ("out-of-memory", exit_cause.OUT_OF_MEMORY_AT_LOAD, exit_cause.OUT_OF_MEMORY_LATER),
        ("config", exit_cause.CONFIG, exit_cause.ENGINE_DIED),
        ("host", exit_cause.HOST, exit_cause.HOST),
        ("engine-died", exit_cause.ENGINE_DIED, exit_cause.ENGINE_DIED),
        ("no such cause", exit_cause.START_FAILED, exit_cause.ENGINE_DIED),
        (None, exit_cause.START_FAILED, exit_cause.ENGINE_DIED),
    ],
)
def test_a_failure_has_its_cause_by_whether_it_had_been_ready(
    cause: str | None, at_load: exit_cause.Cause, later: exit_cause.Cause
) -> None:
    oom = named("nccl")
    failure = KnownFailure("x", oom.pattern, cause, "") if cause else None
    assert of_known(failure, was_ready=False) is at_load
    assert of_known(failure, was_ready=True) is later


def test_only_a_stop_that_was_asked_for_is_no_failure() -> None:
    ends = {cause.name: ExitReason(cause, "").failed for cause in exit_cause.CAUSES}
    assert [name for name, failed in ends.items() if not failed] == ["drained", "cut"]


def test_a_status_has_its_cause_and_an_unknown_one_is_a_failed_start() -> None:
    assert all(by_status(cause.exit_status) is cause for cause in exit_cause.CAUSES)
    assert by_status(199) is exit_cause.START_FAILED


def test_a_hang_is_explained_by_ranks_that_wait_and_a_stall_by_its_last_line() -> None:
    waiting = "No available shared memory broadcast block found in 60 seconds."
    hang = ExitReason(exit_cause.HUNG, "no progress.")
    explained = explain(hang, notes(waiting=waiting))
    assert explained.failure == "ranks-wait-for-each-other"
    assert explained.sentence.startswith("no progress. ")
    assert explained.cause is exit_cause.HUNG
    assert explain(hang, notes()) == replace(hang, sentence=f"no progress. {REPORT}")
    one = explain(hang, notes(waiting=waiting), Situation({"tensor-parallel-size": "1"}))
    assert one.sentence != explained.sentence
    lost = explain(hang, notes(waiting=waiting), Situation(xids=(Xid(79, "bus"),)))
    assert (lost.failure, lost.xids) == (explained.failure, (Xid(79, "bus"),))


REACHED = Situation(limit=ProcessLimit("/sys/fs/cgroup", 50, 4, refused=1))


def test_a_start_that_fails_for_no_known_cause_at_a_limit_of_processes_is_explained_by_it() -> None:
    unknown = notes("terminate called without an active exception")
    start = classify(unknown, -6, phase="starting", was_ready=False, situation=REACHED)
    assert (start.failure, start.cause) == ("too-few-processes", exit_cause.HOST)
    assert "The limit of 50 processes and threads was reached" in start.sentence
    assert REPORT not in start.sentence
    far = classify(unknown, -6, phase="starting", was_ready=False, situation=Situation())
    assert (far.failure, far.cause) == ("", exit_cause.START_FAILED)
    assert "processes" not in far.sentence
    later = classify(unknown, -6, phase="ready", was_ready=True, situation=REACHED)
    assert later.cause is exit_cause.ENGINE_DIED
    known = classify(
        notes("torch.OutOfMemoryError: CUDA out of memory."),
        1,
        phase="loading weights",
        was_ready=False,
        situation=REACHED,
    )
    assert known.failure == "cuda-out-of-memory"
    silent = notes("RuntimeError: Engine core initialization failed. Failed core proc(s): {}")
    for situation, failure in ((Situation(), "process-gone"), (REACHED, "too-few-processes")):
        assert classify(silent, 1, phase="proving", was_ready=False, situation=situation).failure == failure


def test_a_stall_at_a_limit_of_processes_is_explained_by_it_and_a_hang_is_not() -> None:
    stall = explain(ExitReason(exit_cause.STALLED, "no progress."), notes(), REACHED)
    assert stall.failure == "too-few-processes"
    assert "The limit of 50 processes and threads was reached" in stall.sentence
    assert stall.cause is exit_cause.STALLED
    with_errors = replace(REACHED, xids=(Xid(79, "bus"),))
    assert explain(ExitReason(exit_cause.STALLED, "no progress."), notes(), with_errors).xids == with_errors.xids
    assert "processes" not in explain(ExitReason(exit_cause.STALLED, "no progress."), notes(), Situation()).sentence
    assert "processes" not in explain(ExitReason(exit_cause.HUNG, "no progress."), notes(), REACHED).sentence


@pytest.mark.parametrize("given", ["no progress", "no progress."])
def test_a_reason_ends_with_one_period_and_more_follows_it(given: str) -> None:
    reason = ExitReason(exit_cause.HUNG, given)
    assert reason.sentence == "no progress."
    assert reason.then("") == reason
    more = reason.then("Stacks are here.", failure="x")
    assert more == ExitReason(exit_cause.HUNG, "no progress. Stacks are here.", failure="x")


def test_every_signal_has_its_name() -> None:
    assert found(status=-signal.SIGSEGV).root == "vLLM was ended by SIGSEGV"
    assert found(status=128 + signal.SIGBUS).root == "vLLM was ended by SIGBUS"


def test_the_chain_of_a_later_failure_does_not_explain_the_first() -> None:
    made = notes(UNKNOWN)
    direct = "The above exception was the direct cause of the following exception:"
    oom = "torch.OutOfMemoryError: CUDA out of memory."
    for text in ("WorkerProc hit an exception.", *FRAMES, oom, direct, *FRAMES, "ValueError: wrapped"):
        made.feed(LogLine(text, "Worker_TP1", "ERROR", "worker.py:1"))
    assert [root.others for root in made.roots()] == [(), (oom,)]
    assert classify(made, 1, phase="loading weights", was_ready=False).failure == ""


def test_an_end_without_a_hang_is_only_explained_by_errors_of_gpus() -> None:
    cut = ExitReason(exit_cause.CUT, "cut.")
    assert explain(cut, notes()) == cut
    lost = Situation(xids=(Xid(79, "0000:0a:00"),))
    explained = explain(cut, notes(), lost)
    assert "Xid 79 on GPU 0000:0a:00" in explained.sentence
    assert explained.xids == lost.xids


@pytest.mark.parametrize(("cause", "serving"), [(exit_cause.HUNG, True), (exit_cause.STALLED, False)])
def test_a_hang_is_advised_as_serving_and_a_stall_as_starting(
    monkeypatch: pytest.MonkeyPatch, cause: exit_cause.Cause, serving: bool
) -> None:
    cases = (Remedy("While serving.", serving=True), Remedy("While starting.", serving=False))
    failure = KnownFailure("x", re.compile("x"), cause.name, "", cases=cases)
    monkeypatch.setattr(exit_cause.known_failures, "find", lambda *_: failure)
    advice = "While serving." if serving else "While starting."
    assert explain(ExitReason(cause, "no progress."), notes()).sentence == f"no progress. {advice}"
