"""Which remedy is given, and what a compiler lacks."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dsv4_serve.entrypoint.vllm_log import known_failures
from dsv4_serve.entrypoint.vllm_log.known_failures import REPORT, KnownFailure, Remedy, missing, of_gpu_errors
from dsv4_serve.entrypoint.vllm_log.situation import Situation
from dsv4_serve.entrypoint.vllm_log.xid import Xid

SET = Situation({"enforce-eager": "True"})


@pytest.mark.parametrize(
    ("remedy", "situation", "suits"),
    [
        ({}, Situation(), True),
        ({"given": {"enforce-eager": True}}, SET, True),
        ({"given": {"enforce-eager": True}}, Situation(), False),
        ({"sets": {"enforce-eager": True}}, SET, False),  # set already
        ({"sets": {"enforce-eager": True}}, Situation(), True),
        ({"nvlink": True}, Situation(nvlink=True), True),
        ({"nvlink": True}, Situation(nvlink=False), False),
        ({"nvlink": False}, Situation(nvlink=None), False),
        ({"serving": True}, Situation(serving=True), True),
        ({"serving": True}, Situation(serving=False), False),
        ({"serving": False}, Situation(serving=False), True),
    ],
)
def test_a_remedy_suits_a_situation(remedy: dict[str, Any], situation: Situation, suits: bool) -> None:
    assert Remedy("x", **remedy).suits(situation) is suits


def failure(**more: Any) -> KnownFailure:
    return KnownFailure("x", re.compile("x"), "host", "General on {port}.", **more)


def test_the_first_remedy_that_suits_is_given_then_the_general_one_then_the_report() -> None:
    cases = (Remedy("for nvlink", nvlink=True), Remedy("while serving", serving=True))
    known = failure(cases=cases, sets={"enforce-eager": True})
    assert known.advice(Situation(nvlink=True, serving=True)) == "for nvlink"
    assert known.advice(Situation(serving=True)) == "while serving"
    assert known.advice(Situation(port=8123)) == "General on 8123."
    assert known.advice(SET) == REPORT


def test_a_link_follows_an_advice_and_no_report() -> None:
    known = failure(link="https://example.org", sets={"enforce-eager": True})
    assert known.advice(Situation(port=1)) == "General on 1. See https://example.org."
    assert known.advice(SET) == REPORT


def test_a_failure_is_found_among_the_causes_that_are_asked_for() -> None:
    line = "torch.OutOfMemoryError: CUDA out of memory."
    found = known_failures.find(line)
    assert found
    assert found.cause == "out-of-memory"
    assert known_failures.find(line, "out-of-memory", "hung") == found
    assert known_failures.find(line, "hung") is None
    assert known_failures.find("nobody knows this") is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "/bin/sh: 1: ninja: not found",
            "ninja is missing: on Debian `apt install ninja-build`; with wheels `pip install ninja`",
        ),
        ("a.cu:1:10: fatal error: nobody.h: No such file", "nobody.h is missing, and no package of it is known here"),
        (
            "gcc: fatal error: cannot execute 'cc1plus': execvp: No such file",
            "cc1plus is missing: on Debian `apt install g++`",
        ),
        (
            "RuntimeError: Failed to find C compiler. Please specify",
            "a C compiler is missing: on Debian `apt install g++`",
        ),
        (
            "OSError: libcudart.so.13: cannot open shared object file: No such file or directory",
            "libcudart is missing: on Debian `apt install cuda-cudart-dev-13-0`; with wheels `pip install nvidia-cuda",
        ),
        ("a.c:3:10: fatal error: 'cuda.h' file not found", "cuda.h is missing: on Debian `apt install cuda-cudart-dev"),
        ("RuntimeError: it failed", "a header, library or program is missing, and no package of it is known here"),
    ],
)
def test_what_is_missing_is_named_with_its_packages_or_said_to_be_unknown(line: str, says: str) -> None:
    assert missing(line).startswith(says)


def test_errors_of_gpus_are_told_after_an_advice_and_in_place_of_a_report() -> None:
    lost = Situation(xids=(Xid(79, "0000:0a:00"), Xid(31, "0000:0b:00")))
    told = f"T{lost.gpu_errors()[1:]}. {lost.xids[0].remedy.format(report=REPORT)}"
    assert of_gpu_errors(lost, "set x.") == f"set x. {told}"
    assert of_gpu_errors(lost, REPORT) == told
    assert of_gpu_errors(Situation(), "set x.") == "set x."
    assert failure().advice(lost) == f"General on 8000. {told}"
    linked = KnownFailure("x", re.compile("x"), "host", "Set x. {report}", link="https://example.org")
    assert linked.advice(lost) == f"Set x. See https://example.org. {told}"
    named = KnownFailure("x", re.compile("x"), "host", "see: {xid}")
    assert named.advice(lost) == f"see: {lost.gpu_errors()} {lost.xids[0].remedy.format(report=REPORT)}"
    assert named.advice(Situation()) == f"see: {Situation().gpu_errors()}"
