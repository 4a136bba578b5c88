"""Errors that the driver reports of a GPU: read from a kernel's line, ordered by what they tell, and put into advice."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.vllm_log import exit_cause, known_failures, xid
from dsv4_serve.entrypoint.vllm_log.exit_cause import ExitReason
from dsv4_serve.entrypoint.vllm_log.parser import LogLine
from dsv4_serve.entrypoint.vllm_log.root_cause import LogNotes
from dsv4_serve.entrypoint.vllm_log.situation import Situation
from dsv4_serve.entrypoint.vllm_log.xid import Xid

LOST, MAPPED, CLEANED = Xid(79, "0000:c1:00"), Xid(31, "0000:c1:00"), Xid(45, "0000:c1:00")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("NVRM: Xid (PCI:0000:c1:00): 79, pid=4711, name=python, GPU has fallen off the bus.", LOST),
        ("6,1234,99,-;NVRM: Xid (PCI:0000:C1:00): 31, pid='<unknown>', name=<unknown>, Ch 00000010", MAPPED),
        ("[ 12.5] NVRM: Xid (0000:c1:00): 45, Ch 0000007e", CLEANED),
        ("NVRM: Xid (PCI:0000:c1:00 GPU-I:05): 31, pid=7194, on an instance of MIG", MAPPED),
        ("NVRM: GPU at PCI:0000:c1:00: GPU-0b1c", None),
        ("nvidia-modeset: Xid", None),
    ],
)
def test_a_line_of_the_kernel_log_names_number_and_gpu(line: str, found: Xid | None) -> None:
    assert xid.in_kernel_log(line) == found


@pytest.mark.parametrize("text", ["00000000:C1:00.0", "0000:c1:00.0", "0000:c1:00", "C1:00.0"])
def test_an_address_has_one_form(text: str) -> None:
    assert xid.bus(text) == "0000:c1:00"


def test_what_broke_comes_before_what_followed() -> None:
    assert xid.ordered([CLEANED, MAPPED, LOST, MAPPED]) == [LOST, MAPPED, CLEANED]
    assert xid.ordered([Xid(999, "b"), MAPPED]) == [Xid(999, "b"), MAPPED]


def test_every_fact_is_whole() -> None:
    for entry in xid.known().values():
        assert entry.keys() - {"serves"} == {"kind", "what", "remedy"}
        assert entry["kind"] in xid.KINDS
        assert not entry["what"].endswith(".")
        assert entry["remedy"].format(report="R").endswith((".", "R"))


def ended(line: str, *xids: Xid) -> ExitReason:
    notes = LogNotes()
    for text in ("Traceback (most recent call last):", '  File "a.py", line 1, in a', line):
        notes.feed(LogLine.parse(text))
    return exit_cause.classify(notes, 1, phase="ready", was_ready=True, situation=Situation(xids=xids))


def test_an_unknown_failure_is_explained_by_the_gpu() -> None:
    with_error, without = ended("ValueError: strange", LOST, CLEANED), ended("ValueError: strange")
    assert without.sentence.endswith(known_failures.REPORT)
    assert with_error.sentence == (
        "vLLM's engine died while serving (exit status 1). The driver reported Xid 79 on GPU 0000:c1:00 (the GPU has"
        " fallen off the bus), Xid 45 on GPU 0000:c1:00 (the driver cleaned up after a program that had ended). Reboot"
        " the host; check the GPU's power, temperature and PCIe slot if it comes again."
    )
    assert with_error.xids == (LOST, CLEANED)
    assert with_error.root == "ValueError: strange"


def test_a_kernel_that_failed_names_the_error_or_where_to_look() -> None:
    line = "torch.AcceleratorError: CUDA error: an illegal memory access was encountered"
    assert "look for Xid lines in the host's kernel log (`dmesg`)" in ended(line).sentence
    sentence = ended(line, MAPPED).sentence
    assert "dmesg" not in sentence
    assert sentence.count("Xid 31 on GPU 0000:c1:00") == 1
    assert sentence.count(known_failures.REPORT) == 1


def test_a_hang_and_a_stall_name_it_too() -> None:
    hung = ExitReason(exit_cause.HUNG, "no progress for 120 s.")
    explained = exit_cause.explain(hung, LogNotes(), Situation(xids=(LOST,)))
    assert "The driver reported Xid 79" in explained.sentence
    assert explained.xids == (LOST,)
    assert exit_cause.explain(hung, LogNotes(), Situation()).sentence == f"{hung.sentence} {known_failures.REPORT}"


def test_a_requested_stop_is_not_blamed_on_the_gpu() -> None:
    notes = LogNotes()
    notes.stopped = True
    reason = exit_cause.classify(notes, 0, phase="ready", was_ready=True, situation=Situation(xids=(LOST,)))
    assert (reason.cause, reason.xids) == (exit_cause.DRAINED, ())
