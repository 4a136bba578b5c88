"""Logs of failures that users reported, and many more made of them: whatever follows, precedes or surrounds the root."""

from __future__ import annotations

import importlib.util
import io
import logging
import random
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.vllm_log import known_failures
from dsv4_serve.entrypoint.vllm_log.exit_cause import ExitReason, classify
from dsv4_serve.entrypoint.vllm_log.parser import LogLine, Splitter
from dsv4_serve.entrypoint.vllm_log.root_cause import KEPT, LogNotes
from dsv4_serve.entrypoint.vllm_log.situation import Situation
from tests.entrypoint.vllm_log.cases import CASES, FOLDER, Case

ECHO = (
    "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root"
)
FRAMES = ["Traceback (most recent call last):", '  File "x.py", line 1, in run', "    return func(*args, **kwargs)"]


def read(log: bytes, *, was_ready: bool = True, situation: Situation | None = None, status: int = 1) -> ExitReason:
    splitter, notes = Splitter(), LogNotes()
    for line in splitter.feed(log) + splitter.close():
        notes.feed(LogLine.parse(line))
    return classify(notes, status, phase="compiling kernels", was_ready=was_ready, situation=situation)


def test_every_log_has_its_case() -> None:
    assert {path.stem for path in FOLDER.glob("*.log")} == {case.name for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_reported_failure_has_its_status_its_root_and_advice_that_fits(case: Case) -> None:
    found = read(case.log, was_ready=case.serving, situation=Situation(case.settings, case.nvlink))
    assert (found.cause.exit_status, found.failure) == (case.status, case.failure)
    assert [words for words in case.root if words not in found.root] == []
    assert [words for words in case.advice if words not in found.sentence] == []
    assert [words for words in case.never if words in f"{found.sentence} {found.root}"] == []
    assert len(found.root) < 700


# Generated logs: a record is a process, a headline and a message; ranks, streams and formats vary around it.


def formatters() -> dict[str, logging.Formatter]:
    """The formatters of vLLM itself, and python-json-logger's as vLLM sets it up (vllm/logger.py)."""
    spec = find_spec("vllm")
    assert spec
    assert spec.submodule_search_locations
    file = Path(spec.submodule_search_locations[0]) / "logging_utils/formatter.py"
    module_spec = importlib.util.spec_from_file_location("vllm_formatter", file)
    assert module_spec
    assert module_spec.loader
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    json_logger = pytest.importorskip("pythonjsonlogger.json")
    text = "(%(vllm_process_name)s pid=%(process)d) %(levelname)s %(asctime)s [%(fileinfo)s:%(lineno)d] %(message)s"
    date = "%m-%d %H:%M:%S"
    return {
        "text": module.NewLineFormatter(text, date),
        "debug": module.NewLineFormatter(text, date, log_level="DEBUG"),
        "color": module.ColoredFormatter(text, date),
        "prefix": module.NewLineFormatter(f"[replica 3] (eu) {text}", date),
        "json": json_logger.JsonFormatter(module.JSON_FORMAT),
    }


@pytest.fixture(scope="module", name="formats")
def _formats() -> dict[str, logging.Formatter]:
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed beside this interpreter")
    return formatters()


def written(formatter: logging.Formatter, records: list[tuple[str, int, str]]) -> bytes:
    stream = io.StringIO()
    for process, level, text in records:
        record = logging.LogRecord("vllm.v1.engine.core", level, "/x/vllm/v1/engine/core.py", 7, text, None, None)
        record.vllm_process_name = record.processName = process
        stream.write(formatter.format(record) + "\n")
    return stream.getvalue().encode()


def failed(process: str, headline: str, *chain: str) -> tuple[str, int, str]:
    direct = "\n\nThe above exception was the direct cause of the following exception:\n\n"
    return process, logging.ERROR, f"{headline}\n" + direct.join("\n".join([*FRAMES, text]) for text in chain)


def streams(count: int) -> list[tuple[str, int, str]]:
    return [failed("APIServer", "Error in chat completion stream generator.", ECHO)] * count


NINJA = "RuntimeError: Ninja build failed. Ninja output:\n" + "\n".join(
    f"[{n}/300] /usr/bin/nvcc -c x{n}.cu\nFAILED: x{n}.o\nx{n}.cu:2:10: fatal error: cublasLt.h: No such file or directory"
    for n in range(300)
)
ROOTS = {
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB.": (81, "torch.OutOfMemoryError"),
    NINJA: (69, "x0.cu:2:10: fatal error: cublasLt.h"),
    "ValueError: a sentence that nobody knows": (82, "ValueError: a sentence that nobody knows"),
    "triton.compiler.errors.CompilationError: at 3:4:\n    a = tl.dot(x, y)\n        ^\nAssertionError('K of 8 is too small')": (
        82,
        "AssertionError('K of 8 is too small')",
    ),
    "RuntimeError: Error(s) in loading state_dict for Mtp:\n\tsize mismatch for e_proj.weight: [4096] against [2048]": (
        82,
        "size mismatch for e_proj.weight",
    ),
    'RuntimeError: Compilation failed!\nCommand: nvcc k.cu\nk.cu(12): error: identifier "foo" is undefined\n1 error detected in': (
        82,
        'identifier "foo" is undefined',
    ),
    "DSLRuntimeError: Error during runtime code generation for function `gemm_kernel`\n  Caused exception: no such layout": (
        82,
        "Caused exception: no such layout",
    ),
}


FORMATS = ["text", "debug", "color", "prefix", "json"]
MANY = 10 * KEPT
FEW_AND_MANY = [*((name, count) for name in FORMATS for count in (0, 1, 29)), ("text", MANY), ("json", MANY)]
"""Formats of the log, and numbers of streams."""


@pytest.mark.parametrize(("name", "count"), FEW_AND_MANY)
@pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.partition(":")[0])
def test_no_number_of_streams_ranks_or_steps_hides_the_root(
    formats: dict[str, logging.Formatter], name: str, root: str, count: int
) -> None:
    status, words = ROOTS[root]
    records = [
        ("Worker_TP0", logging.INFO, "Loading model from scratch..."),
        failed("Worker_TP0", "WorkerProc hit an exception.", "KeyError: 'inner'", root),
        *(
            failed(f"Worker_TP{rank}", "WorkerProc hit an exception.", "KeyError: 'inner'", root)
            for rank in range(1, 8)
        ),
        failed("EngineCore", "EngineCore encountered a fatal error.", "RuntimeError: Worker failed with error 'x'"),
        failed("APIServer", "AsyncLLM output_handler failed.", ECHO),
        *streams(count),
    ]
    found = read(written(formats[name], records))
    assert (found.cause.exit_status, words in found.root) == (status, True), found


CONSEQUENCES = [
    "torch.distributed.DistBackendError: NCCL error in: x.cpp:3690, remote process exited or there was a network error",
    "TimeoutError: RPC call to execute_model timed out.",
    "BrokenPipeError: [Errno 32] Broken pipe",
    "RuntimeError: Worker failed with error 'x', please check the stack trace above for the root cause",
    "ConnectionResetError: [Errno 104] Connection reset by peer",
    "zmq.error.ContextTerminated: Context was terminated",
]


@given(st.data())
def test_the_rank_that_failed_by_itself_wins_wherever_it_stands(
    formats: dict[str, logging.Formatter], data: st.DataObject
) -> None:
    """Lines of ranks arrive mixed; the consequences that a rank meets may even arrive first."""
    root = failed("Worker_TP3", "WorkerProc hit an exception.", "AssertionError: 4096 20")
    others = data.draw(st.lists(st.sampled_from(CONSEQUENCES), max_size=12))
    peers = [failed(f"Worker_TP{4 + n}", "WorkerProc hit an exception.", text) for n, text in enumerate(others)]
    formatter = formats[data.draw(st.sampled_from(sorted(formats)))]
    blocks = [written(formatter, [one]).splitlines(keepends=True) for one in (root, *peers)]
    order = random.Random(data.draw(st.integers(0, 1 << 16)))
    mixed = []
    while blocks := [block for block in blocks if block]:
        mixed.append(order.choice(blocks).pop(0))
    assert read(b"".join(mixed)).root == "AssertionError: 4096 20"


def stamped(process: str, time: str, error: str) -> bytes:
    lines = ["WorkerProc hit an exception.", *FRAMES, error]
    return "".join(f"({process} pid=7) ERROR {time} [m.py:1] {line}\n" for line in lines).encode()


@pytest.mark.parametrize(
    ("early", "late"), [("09-07 03:03:03", "09-07 03:03:09"), ("12-31 23:59:59", "01-01 00:00:01")]
)
def test_of_two_ranks_the_one_that_failed_first_wins_by_its_time(early: str, late: str) -> None:
    first, second = stamped("Worker_TP1", early, "ValueError: a"), stamped("Worker_TP0", late, "ValueError: b")
    assert read(second + first).root == read(first + second).root == "ValueError: a"


def chain(*links: str, during: bool = False, function: str = "run") -> bytes:
    how = "During handling of the above exception, another exception occurred:" if during else ""
    how = how or "The above exception was the direct cause of the following exception:"
    frames = [FRAMES[0], f'  File "x.py", line 1, in {function}', "    f()"]
    text = f"\n\n{how}\n\n".join("\n".join([*frames, link]) for link in links)
    return f"Process EngineCore:\n{text}\n".encode()


GROUP = b"""Process EngineCore:
  + Exception Group Traceback (most recent call last):
  |   File "x.py", line 1, in f
  |     f()
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "x.py", line 1, in g
    |     g()
    | ValueError: within
    +------------------------------------
"""


@pytest.mark.parametrize(
    ("log", "root"),
    [
        (chain("KeyError: 'a'", "ValueError: b", "RuntimeError: c"), "RuntimeError: c"),
        (chain("KeyError: 'a'", "ValueError: b", during=True), "ValueError: b"),
        (
            chain("ValueError: b", "subprocess.CalledProcessError: Command 'x' returned non-zero exit status 1."),
            "ValueError: b",
        ),
        (chain("ValueError: b", "TimeoutError: RPC call to step timed out."), "ValueError: b"),
        (chain("ValueError: b", "BrokenPipeError: [Errno 32] Broken pipe", during=True), "ValueError: b"),
        (
            chain("ValueError: b", "PermissionError: [Errno 13] denied: '/x'", during=True, function="cleanup_dist"),
            "ValueError: b",
        ),
        (chain("KeyError: 'a'", "PermissionError: [Errno 13] x", during=True), "PermissionError: [Errno 13] x"),
        (
            chain("TimeoutError", "TimeoutError: RPC call to step timed out."),
            "TimeoutError: RPC call to step timed out.",
        ),
        (
            chain("socket.gaierror: [Errno -2] Name or service not known"),
            "socket.gaierror: [Errno -2] Name or service not known",
        ),
        (
            GROUP,
            "ValueError: within",
        ),
    ],
)
def test_a_chain_has_the_root_that_python_means(log: bytes, root: str) -> None:
    assert read(log).root == root
    ranked = b"".join(b"[rank3]: " + line + b"\n" for line in log.splitlines()[1:] if line)
    if b"Group" not in log:
        assert read(ranked).root == root
        prefixed = b"".join(b"(EngineCore_DP1 pid=7) " + line + b"\n" for line in log.splitlines())
        assert read(prefixed).root == root


def test_ordinary_work_after_a_failure_is_no_reason_to_forget_it_for_its_echo() -> None:
    asked = b'INFO:     127.0.0.1:1 - "POST /v1/chat/completions HTTP/1.1" 500 Internal Server Error\n' * 3000
    echo = stamped("EngineCore", "09-07 03:03:09", ECHO)
    assert read(stamped("Worker", "09-07 03:03:03", "ValueError: a") + asked + echo).root == "ValueError: a"


def test_no_number_of_different_echoes_takes_the_room_of_a_cause() -> None:
    echoes = (f"RuntimeError: Worker failed with error '{number}'" for number in range(3 * KEPT))
    before = b"".join(stamped("EngineCore", "09-07 03:03:03", echo) for echo in echoes)
    assert read(before + stamped("Worker", "09-07 03:03:03", "ValueError: a")).root == "ValueError: a"


def test_what_pydantic_says_of_every_field_is_kept() -> None:
    fields = "".join(
        f"{name}\n  Input should be a valid integer [type=int_type]\n    For further information visit x\n"
        for name in "ab"
    )
    log = f"{FRAMES[0]}\npydantic_core._pydantic_core.ValidationError: 2 validation errors for CacheConfig\n{fields}"
    assert "CacheConfig a Input should be a valid integer [type=int_type] b Input" in read(log.encode()).root


def test_a_cut_off_json_record_is_still_read(formats: dict[str, logging.Formatter]) -> None:
    record = failed("EngineCore", "EngineCore encountered a fatal error.", "ValueError: a " + "x" * (1 << 19))
    assert read(written(formats["json"], [record])).root.startswith("ValueError: a xxx")


def test_a_users_prompt_in_json_is_no_cause(formats: dict[str, logging.Formatter]) -> None:
    prompt = "Received request: \nTraceback (most recent call last):\nValueError: a prompt"
    assert read(written(formats["json"], [("APIServer", logging.INFO, prompt)])).root == ""


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("a.cu:1:10: fatal error: cuda_runtime.h: No such file or directory", "cuda-cudart-dev-13-0"),
        ("a.cpp:1:10: fatal error: Python.h: No such file or directory", "python3-dev"),
        ("a.cu:1:10: fatal error: cub/cub.cuh: No such file or directory", "nvidia-cuda-cccl"),
        ("a.cu:1:10: fatal error: cute/tensor.hpp: No such file or directory", "flashinfer-python"),
        ('a.cu(3): error: cannot open source file "cusparse.h"', "libcusparse-dev-13-0"),
        ("/usr/bin/ld: cannot find -lcublasLt: No such file or directory", "libcublas-dev-13-0"),
        ("/bin/sh: 1: nvcc: not found", "cuda-nvcc-13-0"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'ninja'", "ninja-build"),
        ("a.cu:1:10: fatal error: nobody_knows.h: No such file or directory", "no package of it is known"),
    ],
)
def test_what_a_compiler_lacks_is_named_with_its_packages(reason: str, words: str) -> None:
    found = read(f"{FRAMES[0]}\nRuntimeError: Ninja build failed. Ninja output:\n{reason}\n".encode(), was_ready=False)
    assert found.cause.exit_status == 69
    assert words in found.sentence


def test_the_end_of_a_long_json_record_is_read(formats: dict[str, logging.Formatter]) -> None:
    text = "\n".join(["EngineCore encountered a fatal error.", *FRAMES, *FRAMES[1:] * 500, "ValueError: a"])
    assert read(written(formats["json"], [("EngineCore", logging.ERROR, text)])).root == "ValueError: a"


@pytest.mark.parametrize(
    ("failure", "situation", "says", "silent"),
    [
        ("inductor-failed", Situation(), "set enforce-eager", "does not switch off"),
        ("inductor-failed", Situation({"enforce-eager": "True"}), "does not switch off", "set enforce-eager"),
        ("illegal-memory-access", Situation({"enforce-eager": "True"}), "dsv4 bundle --support", "set enforce-eager"),
        ("custom-all-reduce-broken", Situation({"disable-custom-all-reduce": "True"}), "Report it", "set disable"),
        ("illegal-memory-access", Situation(), "enforce-eager", "while serving"),
        ("compiler-killed", Situation(), "set MAX_JOBS=2", "is small"),
        ("compiler-killed", Situation({"MAX_JOBS": "2"}), "is small", "set MAX_JOBS"),
        ("compiler-crashed", Situation({"MAX_JOBS": "1"}), "start again.", "MAX_JOBS"),
        ("nccl", Situation(nvlink=True), "Xid", "p2p-off"),
        ("nccl", Situation(nvlink=False), "p2p-off", "Xid"),
        ("nccl", Situation({"NCCL_P2P_DISABLE": "1"}), "/dev/shm", "p2p-off"),
        ("ranks-never-meet", Situation(nvlink=True), "fabricmanager", "IOMMU"),
        ("ranks-wait-for-each-other", Situation({"tensor-parallel-size": "1"}), "The worker", "p2p-off"),
    ],
)
def test_advice_knows_what_is_set_and_how_the_gpus_are_connected(
    failure: str, situation: Situation, says: str, silent: str
) -> None:
    advice = next(known for known in known_failures.known() if known.name == failure).advice(situation)
    assert says in advice
    assert silent not in advice
