"""What surrounds a start: probes are answered during every step, and every way to end is reported once."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsv4_serve.entrypoint import early_signals, procfs
from dsv4_serve.entrypoint.doctor.report import Diagnosis, DoctorReport
from dsv4_serve.entrypoint.errors import ConfigError, HostError
from dsv4_serve.entrypoint.fingerprint import fingerprint
from dsv4_serve.entrypoint.machine.machine import Machine
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.problem import Problem
from dsv4_serve.entrypoint.supervisor import crash_loop, exit_report
from dsv4_serve.entrypoint.supervisor import lifecycle as lifecycles
from dsv4_serve.entrypoint.supervisor.context import ServeContext
from dsv4_serve.entrypoint.supervisor.lifecycle import Lifecycle, StartEnded, lifecycle
from dsv4_serve.entrypoint.vllm_log import exit_cause
from dsv4_serve.entrypoint.vllm_log.exit_cause import ExitReason
from dsv4_serve.healthcheck.state import LastExit
from tests.support.patience import slowness

PLAN = Plan({}, {"model": Setting("m", "test")}, {})
FAST = {name: Setting(0.2, "test") for name in ("supervise.backoff-first", "supervise.backoff-most")}
DRAINED = ExitReason(exit_cause.DRAINED, "stopped after every running request had finished")


@pytest.fixture(autouse=True)
def _unchanged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The process of these tests keeps its signal handlers, and adopts nobody."""
    monkeypatch.setattr(procfs, "adopt_orphans", lambda: None)
    caplog.set_level(logging.INFO)
    before = {number: signal.getsignal(number) for number in (*early_signals.STOP, *early_signals.HARMLESS)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def context(tmp_path: Path) -> ServeContext:
    (tmp_path / "termination-log").touch()
    return ServeContext({}, "vllm", "127.0.0.1", 0, tmp_path / "run", tmp_path / "termination-log")


def last_exit(context: ServeContext) -> dict:
    return json.loads((context.run_folder / "last-exit.json").read_text())


def ended(context: ServeContext, *errors: Exception, phase: str = "resolving") -> int:
    """Return the exit status of starts that end by these errors, one after the other; of the last one."""

    async def start(error: Exception) -> int:
        async with lifecycle(context) as life:
            life.health.enter(phase)
            raise error
        return life.exit_status

    return [asyncio.run(start(error)) for error in errors][-1]


def test_a_plan_that_cannot_be_resolved_is_reported_once_and_everywhere(context, caplog) -> None:
    assert ended(context, ConfigError("TP = 3 is no divisor.")) == 78
    assert [message for message in caplog.messages if "TP = 3" in message] == ["TP = 3 is no divisor."]
    assert last_exit(context) == {
        "cause": "config",
        "status": 78,
        "sentence": "TP = 3 is no divisor.",
        "root": "",
        "xids": [],
    }
    assert context.termination_log.read_text() == "config (exit status 78): TP = 3 is no divisor."


def test_an_error_after_resolving_is_no_refusal(context, caplog) -> None:
    assert ended(context, HostError("vLLM is not executable."), phase="checking") == 69
    assert caplog.messages[-1] == "host (exit status 69): vLLM is not executable."
    assert crash_loop.load(context.run_folder).failures == 1


def test_a_person_who_makes_the_same_mistake_again_is_answered_at_once(context) -> None:
    watched = ServeContext(**{**vars(context), "interactive": True})
    began = time.monotonic()
    assert ended(watched, *[ConfigError("no")] * 4) == 78
    assert time.monotonic() - began < 8
    assert crash_loop.load(context.run_folder).failures == 4


def test_an_unknown_exception_is_one_sentence_and_its_traceback_is_in_the_run_directory(context, caplog) -> None:
    context.run_folder.mkdir()
    (context.run_folder / "last-exit.json").write_text('{"cause": "drained", "status": 0}')
    assert ended(context, ZeroDivisionError("of a secret")) == 70
    file = context.run_folder / "internal-error.txt"
    sentence = (
        f"internal error (ZeroDivisionError); report it with `dsv4 bundle --support`. Its traceback is in {file}."
    )
    assert caplog.messages[-1] == f"internal-error (exit status 70): {sentence}"
    assert last_exit(context) == {"cause": "internal-error", "status": 70, "sentence": sentence, "root": "", "xids": []}
    assert "ZeroDivisionError: of a secret" in file.read_text()
    assert crash_loop.load(context.run_folder).failures == 1


def test_an_error_in_the_background_ends_nothing_and_is_reported_once(context, caplog) -> None:
    async def start() -> int:
        async with lifecycle(context) as life:
            for _ in range(3):
                asyncio.get_running_loop().call_soon(lambda: 1 // 0)
            await asyncio.sleep(0.1)
            life.exit_reason = DRAINED
        return life.exit_status

    assert asyncio.run(start()) == 0
    assert len([message for message in caplog.messages if "internal error (ZeroDivisionError)" in message]) == 1
    assert "1 // 0" in (context.run_folder / "internal-error.txt").read_text()


def test_probes_are_answered_while_a_step_blocks(context, caplog) -> None:
    def ask(path: str) -> str:
        port = next(message.split(":")[0].split()[-1] for message in caplog.messages if message.startswith("health on"))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5 * slowness()) as answer:
            return answer.read().decode()

    async def start() -> tuple[str, str]:
        async with lifecycle(context) as life:
            life.health.enter("checking")
            asked = threading.Event()
            step = asyncio.create_task(life.unless_stopped(lambda: "result" if asked.wait(60 * slowness()) else ""))
            live = await asyncio.to_thread(ask, "/livez")
            assert not step.done()
            asked.set()
            life.exit_reason = DRAINED
            return live, await step
        raise AssertionError

    assert asyncio.run(start()) == ("[+]process ok\n[+]progress ok\nlivez check passed\n", "result")


def test_a_plan_whose_starts_failed_waits_and_a_healthy_start_resets_the_count(context) -> None:
    plan = Plan(PLAN.choices, PLAN.flags, {}, supervision=FAST)

    async def start(*, fails: bool) -> tuple[bool, int]:
        async with lifecycle(context) as life:
            waited = await life.admit(plan, Machine())
            if not fails:
                life.forget_failures()
            life.exit_reason = ExitReason(exit_cause.HUNG, "no progress")
        return waited, life.health.starts

    assert [asyncio.run(start(fails=fails)) for fails in (True, True, True, False)] == [
        (False, 1),
        (False, 2),
        (True, 3),
        (True, 4),
    ]
    assert crash_loop.load(context.run_folder).failures == 1


def test_a_start_knows_how_the_last_one_ended(context) -> None:
    plan = dataclasses.replace(PLAN, supervision=FAST)

    async def start(reason: ExitReason | None) -> LastExit | None:
        async with lifecycle(context) as life:
            await life.admit(plan, Machine())
            life.exit_reason = reason or DRAINED
        return life.health.last_exit

    assert asyncio.run(start(ExitReason(exit_cause.HUNG, "no progress for 120 s", root="a line of the log"))) is None
    last = asyncio.run(start(DRAINED))
    assert last is not None
    assert (last.cause, last.status, last.sentence, last.root) == (
        "hung",
        83,
        "no progress for 120 s.",
        "a line of the log",
    )
    assert time.time() - 60 < (last.at or 0.0) <= time.time()
    (context.run_folder / "last-exit.json").write_text('{"cause": "of another start", "status": 1}')
    other = asyncio.run(start(None))
    assert other is not None
    assert dataclasses.replace(other, at=None) == LastExit("drained")
    record = crash_loop.load(context.run_folder)
    crash_loop.save(context.run_folder, dataclasses.replace(record, ended=0.0))  # it was killed
    killed = asyncio.run(start(None))
    assert killed == LastExit("unrecorded", sentence="no exit reason was recorded: it was killed, or the power failed.")


def test_a_refused_plan_is_the_last_exit_while_it_is_held_back(context, monkeypatch) -> None:
    seen: list[LastExit | None] = []

    async def wait(life: Lifecycle, _supervise: object) -> bool:
        seen.append(life.health.last_exit)
        return True

    monkeypatch.setattr(Lifecycle, "_back_off", wait)
    assert ended(context, ConfigError("TP = 3 is no divisor")) == 78
    assert [(one.cause, one.status, one.sentence) for one in seen if one] == [("config", 78, "TP = 3 is no divisor.")]


def test_a_fatal_problem_ends_the_start_and_another_one_is_a_note(context, caplog) -> None:
    note = Diagnosis("shm", Problem("a", "b", "c", fatal=False), of_host=True)
    fatal = Diagnosis("port-free", Problem("port 8000 is held", "", "stop it"), of_host=True)
    second = Diagnosis("disk", Problem("it is full", "", "empty it"), of_host=True)
    life = Lifecycle.__new__(Lifecycle)
    life.require(DoctorReport((note,), ("the checkpoint: `dsv4 serve` fetches it",)))
    with pytest.raises(StartEnded) as caught:
        life.require(DoctorReport((fatal, second, note)))
    assert caplog.messages == [
        "note: not checked: the checkpoint: `dsv4 serve` fetches it",
        *["note: shm: a; needed: b; c"] * 2,
    ]
    assert caught.value.reason == ExitReason(
        exit_cause.HOST,
        "the checks before the start failed:\n"
        "  port-free: port 8000 is held; stop it (--skip port-free overrides).\n"
        "  disk: it is full; empty it (--skip disk overrides).",
    )


def test_a_requested_stop_leaves_no_termination_message(context, caplog) -> None:
    context.run_folder.mkdir()
    exit_report.publish(DRAINED, context)
    assert context.termination_log.read_text() == ""
    assert caplog.messages == ["drained (exit status 0): stopped after every running request had finished."]


@pytest.mark.parametrize(("reason", "level"), [(DRAINED, "INFO"), (ExitReason(exit_cause.HUNG, "no"), "ERROR")])
def test_the_last_line_is_an_error_only_where_it_failed(context, caplog, reason: ExitReason, level: str) -> None:
    context.run_folder.mkdir()
    exit_report.publish(reason, context)
    [record] = caplog.records
    assert record.levelname == level
    assert record.fields == {"cause": reason.cause.name, "exit_status": int(reason.cause.exit_status), "root_cause": ""}


def test_a_termination_message_has_the_root_cause_and_the_size_that_kubernetes_reads(context) -> None:
    context.run_folder.mkdir()
    exit_report.publish(ExitReason(exit_cause.HUNG, "no progress", "TimeoutError: x"), context)
    assert context.termination_log.read_text() == "hung (exit status 83): no progress.\nroot cause: TimeoutError: x"
    exit_report.publish(ExitReason(exit_cause.HUNG, "x" * 9000), context)
    assert len(context.termination_log.read_text()) == 4096
    context.termination_log.unlink()
    exit_report.publish(ExitReason(exit_cause.HUNG, "again"), context)
    assert not context.termination_log.exists()
    assert last_exit(context)["sentence"] == "again."


@pytest.mark.parametrize(
    ("reason", "ready", "failures"),
    [
        (DRAINED, True, 0),
        (DRAINED, False, 2),  # a stop during the start proves nothing
        (ExitReason(exit_cause.CUT, "5 requests were cut"), True, 2),
        (ExitReason(exit_cause.HUNG, "no progress"), True, 3),
        (ExitReason(exit_cause.HUNG, "no progress"), False, 3),
    ],
)
def test_only_a_clean_end_of_a_ready_replica_clears_the_record(
    context, reason: ExitReason, ready: bool, failures: int
) -> None:
    async def start() -> int:
        async with lifecycle(context) as life:
            life.record = crash_loop.StartRecord("plan", 3, 2)
            life.health.ready_after = 5.0 if ready else None
            life.exit_reason = reason
        assert (life.health.phase, life.health.ended) == ("ended", reason.sentence)
        return life.exit_status

    assert asyncio.run(start()) == reason.cause.exit_status
    kept = crash_loop.load(context.run_folder)
    assert (kept.failures, kept.cause) == (failures, reason.cause.name)


def test_a_backoff_is_shown_while_it_lasts_and_a_stop_ends_it(context, caplog) -> None:
    plan = Plan(PLAN.choices, PLAN.flags, {}, supervision={"supervise.backoff-first": Setting(100.0, "test")})

    async def start() -> Lifecycle:
        async with lifecycle(context) as life:
            life.record = crash_loop.StartRecord(fingerprint(plan.argv(), plan.environment()), 2, 2, 1.0, "hung")
            waiting = asyncio.create_task(life.admit(plan, Machine()))
            for _ in range(600):
                if life.health.phase == "backoff":
                    break
                await asyncio.sleep(0.05)
            assert life.health.phase == "backoff"
            assert 90 < (life.health.backoff_until or 0) - time.monotonic() <= 100
            life.signals.received(signal.SIGTERM)
            await waiting
        return life

    life = asyncio.run(start())
    assert life.health.backoff_until is None
    assert (life.exit_reason, life.exit_status) == (lifecycles.STOPPED_EARLY, 0)
    assert "2 starts in a row failed (the last: hung); the next one begins in 100 s" in caplog.text


def test_the_plan_is_published_without_its_secrets_and_none_is_in_a_traceback(context) -> None:
    plan = Plan({}, {"model": Setting("m", "test")}, {"VLLM_API_KEY": Setting("hunter2-secret", "test")})

    async def start() -> Lifecycle:
        async with lifecycle(context) as life:
            await life.admit(plan, Machine())
            raise ZeroDivisionError("of hunter2-secret")
        return life

    life = asyncio.run(start())
    assert life.health.key == "hunter2-secret"
    assert life.exit_status == 70
    assert json.loads((context.run_folder / "plan.json").read_text()) == life.health.plan
    texts = [file.read_text() for file in context.run_folder.rglob("*") if file.is_file()]
    assert any("ZeroDivisionError: of ***" in text for text in texts)
    assert not any("hunter2-secret" in text for text in texts)


@pytest.mark.parametrize("content", [None, "", "x y z\n"], ids=["gone", "empty", "broken"])
def test_a_key_file_that_broke_since_the_plan_is_one_sentence(context, tmp_path, caplog, content) -> None:
    file = tmp_path / "keys"
    plan = Plan({}, {"model": Setting("m", "test")}, {"VLLM_API_KEY": Setting("key-of-the-plan", "test")})
    if content is not None:
        file.write_text(content)

    async def start() -> int:
        async with lifecycle(dataclasses.replace(context, environ={"API_KEY_FILE": str(file)})) as life:
            await life.admit(plan, Machine())
        return life.exit_status

    assert asyncio.run(start()) == 78
    assert [one for one in caplog.messages if f"environment API_KEY_FILE = {file}: " in one]
    assert not (context.run_folder / "internal-error.txt").exists()


def test_a_key_file_that_breaks_while_it_serves_does_not_end_the_next_plan(context, tmp_path) -> None:
    file = tmp_path / "keys"
    file.write_text("a-bare-key-of-clients")
    plan = Plan({}, {"model": Setting("m", "test")}, {"VLLM_API_KEY": Setting("key-of-the-plan", "test")})

    async def start() -> tuple[int, int]:
        async with lifecycle(dataclasses.replace(context, environ={"API_KEY_FILE": str(file)})) as life:
            await life.admit(plan, Machine())
            file.unlink()
            life.describe(plan)
            life.exit_reason = DRAINED
        assert life.health.key_file
        return life.exit_status, len(life.health.key_file.current())

    assert asyncio.run(start()) == (0, 1)


def test_a_step_that_was_stopped_before_it_began_does_not_begin(context) -> None:
    async def start() -> tuple[int, list[int]]:
        async with lifecycle(context) as life:
            life.signals.received(signal.SIGTERM)
            await life.unless_stopped(lambda: begun.append(1))
        return life.exit_status, begun

    begun: list[int] = []
    assert asyncio.run(start()) == (0, [])


def test_a_step_that_is_stopped_takes_its_processes_with_it(context, monkeypatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(procfs, "end_all", ended.append)

    async def start() -> Lifecycle:
        async with lifecycle(context) as life:
            asyncio.get_running_loop().call_later(0.05, life.signals.received, signal.SIGTERM)
            await life.unless_stopped(release.wait, 20)
        return life

    release = threading.Event()
    assert asyncio.run(start()).exit_reason == lifecycles.STOPPED_EARLY
    release.set()
    assert ended == [os.getpid()]


def test_an_error_of_the_user_within_a_step_comes_through(context) -> None:
    def step() -> None:
        raise HostError("no GPU.")

    async def start() -> Lifecycle:
        async with lifecycle(context) as life:
            life.health.enter("checking")
            await life.unless_stopped(step)
        return life

    assert asyncio.run(start()).exit_status == 69
