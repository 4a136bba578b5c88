"""What ends a vLLM and what is said of it, over a vLLM that is no process; test_supervisor.py starts real ones."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsv4_serve.entrypoint.client.errors import Refused, Unreachable
from dsv4_serve.entrypoint.doctor import installed_patches
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.supervisor import supervisor
from dsv4_serve.entrypoint.supervisor.context import ServeContext
from dsv4_serve.entrypoint.supervisor.lifecycle import Lifecycle
from dsv4_serve.entrypoint.supervisor.stop_signals import StopSignals
from dsv4_serve.entrypoint.vllm_log import exit_cause
from dsv4_serve.entrypoint.vllm_log.exit_cause import ExitReason
from dsv4_serve.entrypoint.vllm_log.parser import LogLine
from dsv4_serve.entrypoint.vllm_log.xid import Xid
from dsv4_serve.healthcheck.state import Health

HUNG = ExitReason(exit_cause.HUNG, "no progress")
STALLED = ExitReason(exit_cause.STALLED, "loading weights: no progress")
REFUSED = ExitReason(exit_cause.GATE_REFUSED, "draft gate: 0% accepted")
DRAINED = ExitReason(exit_cause.DRAINED, "stopped after every running request had finished")
PEER = ExitReason(exit_cause.ENGINE_DIED, "another node went away")


async def forever() -> Any:
    await asyncio.get_running_loop().create_future()


class Vllm:
    """A vLLM: each attribute is what one step answers; a coroutine function or an exception stands for more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, **answers: Any) -> None:
        self.folder = folder
        self.answers: dict[str, Any] = {"until_up": None, "prove": None, "watch": forever, "lost": forever, **answers}
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.did: list[str] = []
        self.started: list[dict[str, Any]] = []
        self.remaining: list[int] = []
        self.described: list[Plan] = []
        self.hurried = False
        self.ready: Callable[[], bool] = lambda: False
        self.pid = 42
        self.on_line: Callable[[LogLine], None] = lambda _: None
        self.xids: tuple[Xid, ...] = ()
        self.blames = False
        for name in ("until_up", "prove", "watch"):
            monkeypatch.setattr(supervisor, name, self.step(name))
        monkeypatch.setattr(supervisor.VllmProcess, "start", self.start)
        monkeypatch.setattr(supervisor, "drain", self.drained)
        monkeypatch.setattr(supervisor.leftovers, "record", self.recorded)
        monkeypatch.setattr(supervisor.leftovers, "forget", lambda _: self.did.append("forgot leftovers"))
        monkeypatch.setattr(supervisor.jit_prebuild, "compile_all", self.prebuilt)
        monkeypatch.setattr(supervisor, "_cache", lambda *_: self.cache())
        monkeypatch.setattr(supervisor.compiled, "count", lambda _: 3)
        monkeypatch.setattr(supervisor.compiled, "sentence", lambda before, after: f"cache: {before} {after}")
        monkeypatch.setattr(supervisor.stack_dump, "dump", self.dumped)
        monkeypatch.setattr(supervisor.guard_path, "variables", lambda *_: {"GUARD": "on"})
        monkeypatch.setattr(supervisor, "Peers", lambda _: self.peers())
        monkeypatch.setattr(supervisor, "XidWatch", SimpleNamespace(of=lambda *_: self.watch_over_gpus()))
        monkeypatch.setattr(supervisor, "VllmClient", self.client)
        monkeypatch.setattr(supervisor, "Follower", lambda *_: SimpleNamespace(follow=self.follow, leave=self.leave))

    def step(self, name: str) -> Callable[..., Any]:
        async def run(*_: Any) -> Any:
            self.did.append(name)
            answer = self.answers[name]
            if isinstance(answer, BaseException):
                raise answer
            given = answer() if callable(answer) else answer
            return await given if asyncio.iscoroutine(given) else given

        return run

    async def start(self, argv: list[str], environ: dict[str, str], on_line: Any, **more: Any) -> Vllm:
        self.started.append({"argv": argv, "environ": environ, **more})
        self.on_line = on_line
        if len(self.started) > 1:
            self.answers |= {"prove": None, "watch": HUNG}
            self.exited = asyncio.get_running_loop().create_future()
        return self

    def cache(self) -> Any:
        return SimpleNamespace(
            folder=Path("cache"),
            filled=self.answers.get("filled", ""),
            before=2,
            last_start={"starting": 9.0},
            sentence=lambda: "kernel cache: miss",
            keep=lambda seconds, _phases: self.did.append(f"kept {0 <= seconds < 60}"),
            saved=lambda _: self.answers.get("saved"),
        )

    def client(self, url: str, key: str, *, verify: bool) -> Any:
        assert (key, verify) == ("hunter2-secret", False)
        return SimpleNamespace(close=self.closed)

    def lost(self, _family: Any, *, ready: Callable[[], bool], waits: Callable[[], None]) -> Any:
        self.ready = ready
        waits()
        return self.step("lost")()

    def peers(self) -> Any:
        return SimpleNamespace(
            lost=self.lost,
            blamed=lambda _: self.blames,
            reason=lambda *, ready: ExitReason(PEER.cause, f"{PEER.sentence} {ready}"),
        )

    def watch_over_gpus(self) -> Any:
        async def settled() -> None:
            self.did.append("settled")

        return SimpleNamespace(
            start=lambda: self.did.append("xids"),
            stop=lambda: self.did.append("no more xids"),
            found=self.xids,
            settled=settled,
        )

    def family(self) -> list[int]:
        return [42, 43]

    def shared_memory(self) -> set[Path]:
        return set()

    async def nap(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def note_shared_memory(self) -> None:
        self.did.append("noted shared memory")

    async def wait(self) -> int:
        return await asyncio.shield(self.exited)

    async def finish_log(self) -> None:
        self.did.append("finished log")

    async def end(self, patience: float, hurry: asyncio.Event) -> list[int]:
        assert patience == supervisor.TERM
        assert hurry.is_set() == self.hurried
        self.did.append("ended")
        return self.remaining

    async def closed(self) -> None:
        self.did.append("closed")

    async def drained(self, *_: Any) -> ExitReason:
        return self.answers.get("drain", DRAINED)

    async def recorded(self, *_: Any) -> None:
        await forever()

    async def prebuilt(self, modules: list[str], environ: dict[str, str]) -> None:
        self.did.append(f"prebuilt {modules} {environ['GUARD']}")

    async def dumped(self, pids: list[int]) -> str:
        assert pids == [42, 43]
        return "stack of hunter2-secret"

    async def follow(self, *_: Any) -> ExitReason | None:
        return await self.step("watch")()

    async def leave(self, *_: Any) -> ExitReason:
        return ExitReason(exit_cause.DRAINED, "left")


def supervised(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    during: Callable[[Vllm, Lifecycle], None] = lambda *_: None,
    flags: dict[str, Any] | None = None,
    supervision: dict[str, Any] | None = None,
    **answers: Any,
) -> tuple[ExitReason, Vllm, Lifecycle]:
    """The reason of a supervision, what was done, and the state; `during` runs when vLLM has been started."""

    async def whole() -> tuple[ExitReason, Vllm, Lifecycle]:
        (tmp_path / "run").mkdir(exist_ok=True)
        context = ServeContext({"A": "b"}, "/bin/vllm", "127.0.0.1", 0, tmp_path / "run", tmp_path / "none")
        life = Lifecycle(context, StopSignals())
        life.machine = SimpleNamespace(cores=2)  # type: ignore[assignment]
        monkeypatch.setattr(supervisor.advice, "situation", lambda *_: None)
        plan = Plan(
            {},
            {"model": Setting("m", "t"), **{name: Setting(value, "t") for name, value in (flags or {}).items()}},
            {"VLLM_API_KEY": Setting("hunter2-secret", "t")},
            supervision={name: Setting(value, "t") for name, value in (supervision or {}).items()},
        )
        life.secrets = plan.secrets()
        vllm = Vllm(monkeypatch, tmp_path, **answers)
        monkeypatch.setattr(life, "describe", vllm.described.append)
        running = asyncio.create_task(supervisor.supervise(plan, life))
        for _ in range(20):
            await asyncio.sleep(0.002)
        during(vllm, life)
        return await asyncio.wait_for(running, 20), vllm, life

    return asyncio.run(whole())


def said(caplog: pytest.LogCaptureFixture, pattern: str) -> bool:
    """Whether a whole message matches; a machine may be so busy that seconds pass."""
    return any(re.fullmatch(pattern, message) for message in caplog.messages)


def exits(status: int) -> Callable[[Vllm, Lifecycle], None]:
    return lambda vllm, _life: vllm.exited.set_result(status)


def stops(_vllm: Vllm, life: Lifecycle) -> None:
    life.signals.received(15)


def test_it_is_proved_before_it_is_ready_and_a_stop_drains_it(monkeypatch, tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    phases: list[str] = []

    def during(vllm: Vllm, life: Lifecycle) -> None:
        phases.append(life.health.phase)
        assert life.health.engine == 42
        assert vllm.ready()
        assert life.health.last_start == {"starting": 9.0}
        stops(vllm, life)

    reason, vllm, life = supervised(monkeypatch, tmp_path, during)
    assert reason == DRAINED
    assert phases == ["ready"]
    assert vllm.did.index("until_up") < vllm.did.index("prove") < vllm.did.index("noted shared memory")
    assert vllm.did.index("noted shared memory") < vllm.did.index("watch")
    assert "kept True" in vllm.did
    assert vllm.did[-4:] == ["no more xids", "closed", "ended", "forgot leftovers"]
    assert (life.health.engine, life.health.busy) == (None, False)
    assert (life.health.cache_hit, life.health.cache_saved) == (False, None)
    assert 0 <= (life.health.ready_after or -1) < 10
    assert "cache: 2 3" in caplog.messages
    assert said(caplog, r"ready \d+ s after start")


def test_a_filled_cache_is_told_and_nothing_is_prebuilt(monkeypatch, tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    modules = {"supervise.prebuild": ["m:f"]}
    _, vllm, _ = supervised(monkeypatch, tmp_path, stops, supervision=modules)
    assert "prebuilt ['m:f'] on" in vllm.did
    _, vllm, life = supervised(monkeypatch, tmp_path, stops, supervision=modules, filled="before", saved=5.4)
    assert "prebuilt [] on" in vllm.did
    assert (life.health.cache_hit, life.health.cache_saved) == (True, 5.4)
    assert said(caplog, r"ready \d+ s after start; the kernel cache saved 5 s")
    caplog.clear()
    supervised(monkeypatch, tmp_path, stops, filled="before", saved=1.0)
    assert said(caplog, r"ready \d+ s after start; the kernel cache saved 1 s")
    caplog.clear()
    supervised(monkeypatch, tmp_path, stops, filled="before", saved=0.9)
    assert said(caplog, r"ready \d+ s after start")


@pytest.mark.parametrize("step", ["until_up", "prove", "watch"])
def test_a_reason_of_any_step_ends_it(monkeypatch, tmp_path: Path, step: str) -> None:
    answer = ExitReason(exit_cause.CORRUPTED, "answers are corrupted")
    answers: dict[str, Any] = {step: answer}
    reason, vllm, life = supervised(monkeypatch, tmp_path, **answers)
    assert (reason.cause, "ended" in vllm.did) == (exit_cause.CORRUPTED, True)
    assert (life.health.ready_after is not None) == (step == "watch")


@pytest.mark.parametrize("answer", [HUNG, STALLED])
def test_a_hung_vllm_leaves_its_stacks_and_no_secret(monkeypatch, tmp_path: Path, answer: ExitReason, caplog) -> None:
    caplog.set_level(logging.INFO)
    reason, _, life = supervised(monkeypatch, tmp_path, watch=answer)
    file = tmp_path / "run/stacks.txt"
    assert file.read_text() == "stack of ***"
    assert reason.sentence.endswith(f"Stacks are in {file}.")
    assert life.health.ended.startswith(answer.sentence)
    assert "stacks of vLLM's processes:\nstack of ***" in caplog.messages


def test_other_ends_leave_no_stacks(monkeypatch, tmp_path: Path) -> None:
    supervised(monkeypatch, tmp_path, stops)
    assert not (tmp_path / "run/stacks.txt").exists()


def test_a_drain_that_hung_leaves_stacks_too(monkeypatch, tmp_path: Path) -> None:
    reason, _, _ = supervised(monkeypatch, tmp_path, stops, drain=HUNG)
    assert reason.sentence == f"{HUNG.sentence} Stacks are in {tmp_path / 'run/stacks.txt'}."


def test_a_second_signal_does_not_wait_for_stacks(monkeypatch, tmp_path: Path) -> None:
    async def dump(_: list[int]) -> str:
        return await forever()

    def during(vllm: Vllm, life: Lifecycle) -> None:
        monkeypatch.setattr(supervisor.stack_dump, "dump", dump)
        vllm.hurried = True
        life.signals.received(15)
        life.signals.received(15)

    supervised(monkeypatch, tmp_path, during, drain=HUNG)
    assert (tmp_path / "run/stacks.txt").read_text() == "a second signal came before the stacks were read"


def test_vllm_that_ends_by_itself_is_judged_by_its_log_and_status(monkeypatch, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def classify(notes: Any, status: int, **more: Any) -> ExitReason:
        seen.append({"status": status, "roots": [root.text for root in notes.roots()], **more})
        return PEER

    monkeypatch.setattr(supervisor.exit_cause, "classify", classify)

    def during(vllm: Vllm, _life: Lifecycle) -> None:
        for text in ("Traceback (most recent call last):", '  File "a.py", line 1, in a', "ValueError: strange"):
            vllm.on_line(LogLine.parse(f"(EngineCore pid=1) ERROR 11-22 06:00:00 [core.py:1] {text}"))
        vllm.exited.set_result(9)

    reason, vllm, _ = supervised(monkeypatch, tmp_path, during)
    assert reason == PEER
    assert (seen[0]["status"], seen[0]["was_ready"], seen[0]["phase"]) == (9, True, "ready")
    assert seen[0]["roots"] == ["ValueError: strange"]
    assert vllm.did.index("finished log") < vllm.did.index("settled")
    supervised(monkeypatch, tmp_path, exits(1), until_up=forever)
    assert (seen[1]["status"], seen[1]["was_ready"], seen[1]["phase"]) == (1, False, "starting")


def test_another_node_is_blamed_where_it_is_at_fault(monkeypatch, tmp_path: Path) -> None:
    def during(vllm: Vllm, _life: Lifecycle) -> None:
        vllm.blames = True
        vllm.exited.set_result(1)

    assert supervised(monkeypatch, tmp_path, during)[0].sentence == f"{PEER.sentence} True."
    assert supervised(monkeypatch, tmp_path, during, until_up=forever)[0].sentence == f"{PEER.sentence} False."
    assert supervised(monkeypatch, tmp_path, lost=PEER)[0] == PEER


def test_a_node_that_is_lost_while_vllm_ends_says_less_than_the_log(monkeypatch, tmp_path: Path) -> None:
    def during(vllm: Vllm, _life: Lifecycle) -> None:
        vllm.exited.set_result(1)
        release.set()

    release = asyncio.Event()

    async def lost() -> ExitReason:
        await release.wait()
        return PEER

    reason, _, _ = supervised(monkeypatch, tmp_path, during, lost=lost)
    assert reason.cause is exit_cause.ENGINE_DIED
    assert reason != PEER


@pytest.mark.parametrize("error", [Unreachable("no answer"), Refused("500: no")])
def test_a_test_request_that_fails_is_the_engines_end_or_ends_it(monkeypatch, tmp_path: Path, error) -> None:
    monkeypatch.setattr(supervisor, "DYING", 0.01)
    reason, _, _ = supervised(monkeypatch, tmp_path, prove=error)
    assert reason.cause is exit_cause.START_FAILED
    assert reason.sentence.startswith("proving: a test request failed (")
    monkeypatch.setattr(supervisor, "DYING", 20.0)
    reason, _, _ = supervised(monkeypatch, tmp_path, exits(3), prove=error)
    assert "exit status 3" in reason.sentence


def test_proofs_without_an_answer_stall_the_start(monkeypatch, tmp_path: Path) -> None:
    limits = {"supervise.stall": {"proving": 0.02}}
    reason, _, _ = supervised(monkeypatch, tmp_path, prove=forever, supervision=limits)
    assert reason.cause is exit_cause.STALLED
    assert "proving: no answer within 0 s (supervise.stall.proving)" in reason.sentence


def test_a_start_that_was_healthy_for_long_forgets_failures(monkeypatch, tmp_path: Path) -> None:
    forgot: list[bool] = []
    monkeypatch.setattr(Lifecycle, "forget_failures", lambda _: forgot.append(True))
    supervised(monkeypatch, tmp_path, stops)
    assert forgot == []
    supervised(monkeypatch, tmp_path, stops, supervision={"supervise.healthy-after": 0.001})
    assert forgot == [True]


@pytest.mark.parametrize(
    ("below", "nodes", "starts"), [("degrade", 1, 2), ("degrade", 2, 1), ("refuse", 1, 1), ("warn", 1, 1)]
)
def test_a_refused_draft_head_is_left_out_where_the_plan_says_so(  # noqa: PLR0917
    monkeypatch, tmp_path: Path, below: str, nodes: int, starts: int, caplog
) -> None:
    flags = {"speculative-config.method": "mtp", "speculative-config.num_speculative_tokens": 2, "nnodes": nodes}
    reason, vllm, life = supervised(
        monkeypatch, tmp_path, flags=flags, supervision={"gate.below-floor": below}, prove=REFUSED
    )
    assert len(vllm.started) == starts
    assert life.health.degraded is (starts == 2)
    if starts == 2:
        assert reason.cause is exit_cause.HUNG
        assert "--speculative-config" in vllm.started[0]["argv"]
        assert "--speculative-config" not in vllm.started[1]["argv"]
        assert vllm.described[0].settings()["speculative-config.num_speculative_tokens"].origin == (
            "degraded: draft gate: 0% accepted"
        )
        assert "draft gate: 0% accepted. Starting again without the draft head." in caplog.messages
    else:
        assert reason.cause is exit_cause.GATE_REFUSED


def test_another_reason_is_not_degraded(monkeypatch, tmp_path: Path) -> None:
    _, vllm, _ = supervised(monkeypatch, tmp_path, supervision={"gate.below-floor": "degrade"}, prove=STALLED)
    assert len(vllm.started) == 1


def test_vllm_gets_its_command_its_variables_and_its_secrets(monkeypatch, tmp_path: Path) -> None:
    flags = {"port": 1, "otlp": "http://u:hunter3-secret@h"}
    monkeypatch.setattr(installed_patches, "applied_patches", lambda: {"import-in-spare-processes"})
    alone = {"supervise.spare-processes": False}
    _, vllm, _ = supervised(monkeypatch, tmp_path, stops, flags=flags, supervision=alone)
    (given,) = vllm.started
    assert given["argv"] == ["/bin/vllm", "serve", "m", "--port", "1"]
    assert given["secret_flags"] == {"otlp": "http://u:hunter3-secret@h"}
    assert given["passing"].secrets == {"hunter2-secret", "hunter3-secret"}
    assert given["environ"] == {"A": "b", "VLLM_API_KEY": "hunter2-secret", "GUARD": "on"}


def test_variables_of_spare_processes_are_overridden_by_those_that_were_given(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(supervisor.spare_processes, "BREAKABLE", "A")
    monkeypatch.setattr(installed_patches, "applied_patches", lambda: {"import-in-spare-processes"})
    _, vllm, _ = supervised(monkeypatch, tmp_path, stops)
    assert (vllm.started[0]["environ"]["A"], vllm.started[0]["environ"]["VLLM_SPARE_PROCESSES"]) == ("b", "1")


@pytest.mark.parametrize(("applied", "asked"), [({"another"}, False), (set(), False), (None, True)])
def test_a_vllm_without_the_patch_is_asked_for_no_spare_process(
    monkeypatch, tmp_path: Path, applied: set[str] | None, asked: bool
) -> None:
    """It would warn of a variable that it does not know. A vLLM of another installation, which is not read, may have it."""
    monkeypatch.setattr(installed_patches, "applied_patches", lambda: applied)
    _, vllm, _ = supervised(monkeypatch, tmp_path, stops)
    assert ("VLLM_SPARE_PROCESSES" in vllm.started[0]["environ"]) == asked


def test_processes_that_survive_are_named_and_stay_on_record(monkeypatch, tmp_path: Path, caplog) -> None:
    def during(vllm: Vllm, life: Lifecycle) -> None:
        vllm.remaining = [7, 8]
        stops(vllm, life)

    _, vllm, _ = supervised(monkeypatch, tmp_path, during)
    assert "forgot leftovers" not in vllm.did
    assert "processes [7, 8] survived SIGKILL" in caplog.text


def test_a_node_without_an_api_server_follows_and_leaves(monkeypatch, tmp_path: Path) -> None:
    flags = {"nnodes": 2, "node-rank": 1, "headless": True}
    reason, vllm, life = supervised(monkeypatch, tmp_path, stops, flags=flags)
    assert reason.sentence == "left."
    assert life.health.headless
    assert "prove" not in vllm.did
    assert not supervised(monkeypatch, tmp_path, stops)[2].health.headless


def test_gpu_faults_matter_unless_the_plan_says_otherwise(monkeypatch, tmp_path: Path) -> None:
    assert supervised(monkeypatch, tmp_path, stops)[2].health.gpu_faults_matter
    warn = {"supervise.gpu-faults": "warn"}
    assert not supervised(monkeypatch, tmp_path, stops, supervision=warn)[2].health.gpu_faults_matter


def test_the_log_moves_the_phase_until_the_proofs_and_not_after(monkeypatch, tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    line = "(Worker_TP0 pid=1) INFO 11-22 04:12:25 [x.py:1] "

    def starting(vllm: Vllm, life: Lifecycle) -> None:
        assert not vllm.ready()
        vllm.on_line(LogLine.parse(line + "Loading model from scratch..."))
        life.health.percent = 7.0
        vllm.on_line(LogLine.parse(line + "Loading model from scratch..."))
        assert (life.health.phase, life.health.percent) == ("loading weights", 7.0)
        shards = "Loading safetensors checkpoint shards:  37% Completed | 13/35 [00:31<00:52,  2.38s/it]"
        vllm.on_line(LogLine.parse(shards))
        assert (life.health.percent, life.health.detail) == (37.0, "shard 13 of 35")
        stops(vllm, life)

    supervised(monkeypatch, tmp_path, starting, until_up=forever)
    assert said(caplog, r"start: loading weights, \d+ s since start, about \d+ s left")

    def ready(vllm: Vllm, life: Lifecycle) -> None:
        vllm.on_line(LogLine.parse(line + "Loading model from scratch..."))
        assert life.health.phase == "ready"
        stops(vllm, life)

    supervised(monkeypatch, tmp_path, ready)


def test_a_start_of_unknown_length_has_no_time_left(caplog) -> None:
    caplog.set_level(logging.INFO)
    health, progress = Health(), supervisor.StartupProgress(0.0)
    progress.phase, progress.caches = "profiling", "warm"
    supervisor._show_progress(health, progress)
    assert said(caplog, r"start: profiling, \d+ s since start")
    assert (health.phase, health.caches) == ("profiling", "warm")
    supervisor._show_progress(health, progress)
    assert len(caplog.messages) == 1


def test_the_caches_of_a_start_are_named_where_they_are_known(monkeypatch, tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)

    async def prove() -> None:
        lives[0].health.caches = "cold"

    lives: list[Lifecycle] = []
    original = Lifecycle.__init__

    def init(self: Lifecycle, *arguments: Any) -> None:
        original(self, *arguments)
        lives.append(self)

    monkeypatch.setattr(Lifecycle, "__init__", init)
    supervised(monkeypatch, tmp_path, stops, prove=prove)
    assert said(caplog, r"ready \d+ s after start; caches cold")


@pytest.mark.parametrize(("wanted", "expected"), [(True, "/weights"), (False, None)])
def test_weights_are_prefetched_where_that_is_wanted(monkeypatch, tmp_path: Path, wanted, expected) -> None:
    read: list[Any] = []

    async def reading(where: Path | None) -> None:
        read.append(where)

    monkeypatch.setattr(supervisor.weights_prefetch, "read", reading)
    monkeypatch.setattr(supervisor.weights_prefetch, "folder", lambda plan, environ: "/weights")
    supervised(monkeypatch, tmp_path, stops, supervision={"supervise.prefetch": wanted})
    assert read == [expected]
