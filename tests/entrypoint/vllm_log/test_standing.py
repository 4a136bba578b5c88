"""What an error stands for, and what advice may count on."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.vllm_log import standing
from dsv4_serve.entrypoint.vllm_log.situation import Situation
from dsv4_serve.entrypoint.vllm_log.standing import Standing
from dsv4_serve.entrypoint.vllm_log.xid import Xid


@pytest.mark.parametrize(
    ("text", "cleaning", "expected"),
    [
        ("ValueError: x", False, Standing.CAUSE),
        ("ValueError: x", True, Standing.CAUSE),
        ("OSError: x", False, Standing.CAUSE),
        ("OSError: x", True, Standing.CONSEQUENCE),
        ("BrokenPipeError: [Errno 32] Broken pipe", False, Standing.CONSEQUENCE),
        ("DistNetworkError: the server socket has failed to listen", False, Standing.CAUSE),
        ("RuntimeError: Worker failed with error 'Broken pipe'", False, Standing.ECHO),
    ],
)
def test_an_error_is_a_cause_unless_it_follows_from_another_one(text: str, cleaning: bool, expected: Standing) -> None:
    assert standing.of(text, cleaning=cleaning) is expected


def test_a_cause_is_likelier_than_a_consequence_and_that_than_an_echo() -> None:
    assert sorted(Standing, reverse=True) == [Standing.ECHO, Standing.CONSEQUENCE, Standing.CAUSE]


def test_wrappers_and_functions_that_clean_up_are_known_by_their_words() -> None:
    assert standing.wraps("subprocess.CalledProcessError: Command 'ninja'")
    assert not standing.wraps("ValueError: x")
    assert standing.cleans_up("_cleanup_profiling")
    assert not standing.cleans_up("load_model")


def test_a_situation_holds_flags_and_variables_of_the_plan() -> None:
    variables, flags = {"NCCL_P2P_DISABLE": Setting("1", "test")}, {"enforce-eager": Setting(True, "test")}
    found = Situation.of(Plan({}, flags, variables), nvlink=True)
    assert found == Situation({"enforce-eager": "True", "NCCL_P2P_DISABLE": "1"}, nvlink=True, serving=False)


def test_a_situation_has_settings_when_it_has_all_of_them_by_glob_and_whatever_their_case() -> None:
    found = Situation({"moe-backend": "FLASHINFER_trtllm", "enforce-eager": "True", "VARIABLE": "a:1, b : True"})
    assert found.has({"VARIABLE": "*b:true"})
    assert found.has({})
    assert found.has({"moe-backend": "flashinfer*", "enforce-eager": True})
    assert not found.has({"moe-backend": "flashinfer*", "enforce-eager": False})
    assert not found.has({"moe-backend": "flashinfer*", "absent": "*"})


def test_of_many_errors_of_gpus_the_first_four_are_named() -> None:
    assert Situation().gpu_errors() == "look for Xid lines in the host's kernel log (`dmesg`)"
    xids = tuple(Xid(79, f"0000:0{number}:00") for number in range(6))
    assert Situation(xids=xids[:1]).gpu_errors() == f"the driver reported {xids[0].clause()}"
    assert [f"0000:0{n}:00" in Situation(xids=xids).gpu_errors() for n in range(6)] == [True] * 4 + [False] * 2
