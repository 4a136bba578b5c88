"""The supervisor over a stand-in engine with one fault each; tests/faults does the same with real vLLM."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.support.patience import slowness
from tests.support.replica import Start, free_port, leaked_memory

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_it_answers_before_the_engine_does_and_is_ready_when_the_proofs_are_in(start: Start) -> None:
    with start() as running:
        running.until(lambda: running.ask("/livez")[0] == 200, 5, "live")
        assert running.ask("/readyz")[0] in (0, 503)
        running.until_ready(20)
        body = running.ask("/readyz")[1]
        assert "[+]generation ok" in body
        assert "[+]draft-gate ok" in body
        assert "[+]corruption ok" in body
        assert any("ready" in line for line in running.messages())


def test_sigterm_finishes_running_streams_and_ends_with_0(start: Start) -> None:
    with start(STAND_IN_SECONDS="0.05") as running:
        running.until_ready(30)
        streams = [running.stream(60) for _ in range(20)]
        assert all(stream.began.wait(60 * slowness()) for stream in streams)
        running.stop()
        running.until(lambda: running.ask("/readyz/accepting")[0] == 503, 1, "not ready at once")
        assert running.ask("/livez")[0] == 200
        status, _ = running.until_ended(20)
        assert status == 0
        assert all(stream.done and not stream.error for stream in streams)
        assert running.last_exit()["cause"] == "drained"


def test_sigterm_during_the_start_ends_with_0(start: Start) -> None:
    with start("stalls") as running:
        running.until(lambda: "stand-in" in running.log_text(), 10, "started")
        running.stop()
        assert running.until_ended(15)[0] == 0


def test_an_engine_that_freezes_is_not_ready_then_ended_as_hung_with_its_stacks(start: Start) -> None:
    with start("freeze") as running:
        running.until_ready(20)
        pids = running.stand_in_pids()
        running.until(lambda: not running.ready(), 10, "not ready")
        assert "[-]progress failed" in running.ask("/readyz")[1]
        status, _ = running.until_ended(20)
        assert (status, running.last_exit()["cause"]) == (83, "hung")
        assert "no progress" in running.last_exit()["sentence"]
        assert "stand_in.py" in (running.run_folder / "stacks.txt").read_text()
        assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_stopped_engine_is_ended_although_it_takes_no_signal(start: Start) -> None:
    with start() as running:
        running.until_ready(20)
        before = running.stand_in_pids()
        psutil.Process(before[0]).suspend()
        status, _ = running.until_ended(30)
        assert status == 83
        assert not any(psutil.pid_exists(pid) for pid in before)


def test_a_draft_head_that_drafts_noise_is_refused(start: Start) -> None:
    with start("scrambled") as running:
        status, _ = running.until_ended(30)
        assert (status, running.last_exit()["cause"]) == (85, "gate-refused")
        assert "draft gate" in (running.run_folder.parent / "termination-log").read_text()


def test_it_is_served_with_a_warning_where_the_profile_says_so(start: Start) -> None:
    with start("scrambled", DSV4_GATE_BELOW_FLOOR="warn") as running:
        running.until_ready(20)
        assert any("WARNING: draft gate" in line for line in running.messages())


def test_it_is_started_once_more_without_its_draft_head_where_the_profile_says_so(start: Start) -> None:
    with start("scrambled", DSV4_GATE_BELOW_FLOOR="degrade") as running:
        running.until_ready(40)
        assert any("WARNING" in line and "without the draft head" in line for line in running.messages())
        plan = json.loads(running.ask("/plan")[1])
        assert "--speculative-config" not in plan["argv"]
        assert plan["settings"]["speculative-config.num_speculative_tokens"]["origin"].startswith("degraded: ")
        assert "dsv4_degraded 1.0" in running.ask("/metrics")[1]


@pytest.mark.parametrize("fault", ["garbled", "nan"])
def test_a_garbled_engine_is_refused(start: Start, fault: str) -> None:
    with start(fault) as running:
        status, _ = running.until_ended(30)
        assert (status, running.last_exit()["cause"]) == (86, "corrupted")


def test_a_start_whose_log_says_nothing_goes_on_while_it_computes(start: Start) -> None:
    limit = 2 * slowness(2)
    env = {"DSV4_SUPERVISE_STALL_STARTING": f"{limit:.1f}", "STAND_IN_COMPUTES": f"{2.5 * limit:.1f}"}
    with start("computes", VLLM_LOGGING_LEVEL="WARNING", **env) as running:
        running.until_ready(40)


def test_a_start_whose_log_says_nothing_is_given_up_when_nothing_moves(start: Start) -> None:
    with start("silent", DSV4_SUPERVISE_STALL_STARTING="2") as running:
        status, _ = running.until_ended(30)
        assert status == 84
        assert "neither read, received nor computed" in running.last_exit()["sentence"]


def test_a_start_without_progress_is_given_up_with_its_phase(start: Start) -> None:
    with start("stalls", DSV4_SUPERVISE_STALL_CONNECTING_RANKS="1") as running:
        status, _ = running.until_ended(30)
        assert (status, running.last_exit()["cause"]) == (84, "stalled")
        assert "connecting ranks: no progress for" in running.last_exit()["sentence"]


def test_the_root_cause_of_a_failed_start_is_reported_not_the_tail(start: Start) -> None:
    with start("key-error") as running:
        status, _ = running.until_ended(30)
        assert (status, running.last_exit()["cause"]) == (87, "start-failed")
        assert "KeyError: 'layers.1.ffn.experts.w13_weight'" in running.last_exit()["root"]
        assert "KeyError" in (running.run_folder.parent / "termination-log").read_text()


def test_failures_in_a_row_delay_the_next_start_and_a_changed_setting_does_not_wait(start: Start) -> None:
    port = str(free_port())
    for _ in range(2):
        with start("key-error", PORT=port) as running:
            assert running.until_ended(30)[0] == 87
    with start("key-error", PORT=port) as running:
        running.until(lambda: "crash-loop breaker: 2 starts in a row" in running.log_text(), 10, "backoff")
        assert running.ask("/livez")[0] == 200
        assert "backoff" in running.ask("/startupz?format=json")[1]
        running.stop()
        assert running.until_ended(5)[0] == 0
    with start(MAX_NUM_SEQS="3", PORT=port) as running:
        running.until_ready(20)


def test_the_same_mistake_again_and_again_is_delayed_too(start: Start) -> None:
    for _ in range(2):
        with start(MAX_MODEL_LEN="many") as running:
            assert running.until_ended(10)[0] == 78
    with start(MAX_MODEL_LEN="many") as running:
        running.until(lambda: "crash-loop breaker" in running.log_text(), 10, "backoff")
        assert running.process.poll() is None


def test_a_health_port_in_use_is_reported_with_the_setting_to_change(start: Start) -> None:
    with start() as running:
        running.until_ready(20)
        with start(DSV4_HEALTH_PORT=str(running.health_port), DSV4_RUN_DIR=str(running.run_folder) + "2") as other:
            status, _ = other.until_ended(10)
            assert status in (69, 78)
            assert "DSV4_HEALTH_PORT" in other.log_text()


def test_a_vllm_that_is_not_there_is_127(start: Start) -> None:
    with start(DSV4_VLLM="/no/such/vllm") as running:
        assert running.until_ended(10)[0] == 127
        assert "Traceback" not in running.log_text()
        assert running.last_exit()["cause"] == "not-found"
        assert "/no/such/vllm: not found" in (running.run_folder.parent / "termination-log").read_text()


def test_start_and_stop_leave_no_process_and_no_file(start: Start) -> None:
    before = leaked_memory()
    for number in (signal.SIGTERM, signal.SIGINT):
        with start() as running:
            running.until_ready(20)
            pids = running.stand_in_pids()
            running.stop(number)
            assert running.until_ended(15)[0] == 0
            assert not any(psutil.pid_exists(pid) for pid in pids)
    with start() as running:
        running.until_ready(20)
        psutil.Process(running.stand_in_pids()[0]).kill()
        assert running.until_ended(15)[0] == 82
    assert leaked_memory() <= before
    assert running.files() == []


def test_the_supervisor_is_small(start: Start) -> None:
    with start() as running:
        running.until_ready(20)
        held = psutil.Process(running.process.pid).memory_info()
        # 40 MiB, and 16 of mapped files, of which more or fewer are in memory by what else runs; `make bench` holds both to 60
        assert held.rss - held.shared < 50 << 20


def test_a_first_start_prebuilds_the_named_modules_and_the_next_one_does_not(start: Start, tmp_path: Path) -> None:
    (tmp_path / "modules.py").write_text(
        "import os\nclass Spec:\n"
        "    def build(self, need_lock): open(os.environ['OUT'], 'a').write(os.environ['VLLM_CACHE_ROOT'] + '\\n')\n"
        "def spec(): return Spec()\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    env = {"PYTHONPATH": path, "OUT": str(tmp_path / "out"), "DSV4_CACHE": str(tmp_path / "cache")}
    for _ in range(2):
        with start(DSV4_SUPERVISE_PREBUILD="modules:spec", STAND_IN_SECONDS="0.05", **env) as running:
            running.until_ready(30)
            running.until((tmp_path / "out").exists, 10, "compiled ahead")
    (once,) = (tmp_path / "out").read_text().splitlines()
    assert once.startswith(str(tmp_path / "cache"))
