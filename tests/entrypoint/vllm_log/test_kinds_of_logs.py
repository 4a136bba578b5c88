"""Logs of other shapes: C++ aborts, subprocesses, messages that begin on the next line, NCCL's last error, Ray, hosts."""

from __future__ import annotations

import json

import pytest

from tests.entrypoint.vllm_log.test_cases import read

TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in run\n    run()'
INITIALIZING = "Exception: WorkerProc initialization failed due to an exception in a background process."
NCCL = (
    "torch.distributed.DistBackendError: NCCL error in: /p/NCCLUtils.cpp:93, unhandled system error, NCCL version 2.28"
)


def logged(process: str, text: str, time: str = "09-07 03:03:03") -> str:
    return "".join(f"({process} pid=7) ERROR {time} [m.py:1] {line}\n" for line in text.split("\n"))


def printed(process: str, text: str) -> str:
    return "".join(f"({process} pid=7) {line}\n" for line in text.split("\n"))


def worker(error: str, rank: int = 0, headline: str = "WorkerProc failed to start.") -> str:
    return logged(f"Worker_TP{rank}", f"{headline}\n{TRACEBACK}\n{error}")


def echoes() -> str:
    core = logged("EngineCore", f"EngineCore failed to start.\n{TRACEBACK}\n{INITIALIZING}")
    failed = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    return core + printed("APIServer", f"{TRACEBACK}\n{failed}")


def aborted(what: str) -> str:
    died = "Worker proc VllmWorker-0 died unexpectedly (exit code: -6), shutting down executor."
    thrown = "terminate called after throwing an instance of 'c10::AcceleratorError'"
    return printed("Worker_TP0", f"{thrown}\n  what():  {what}") + logged("EngineCore", died)


def as_json(log: str) -> str:
    """The same records as a JSON logger of a user's writes them."""
    record = {"timestamp": "2026-09-07T03:03:03Z", "level": "error", "event": "EngineCore failed to start."}
    return json.dumps({**record, "logger": "vllm.v1.engine.core", "exception": f"{TRACEBACK}\n{log}"}) + "\n"


WATCHDOG = (
    "[rank0]:[E907 03:03:03.1 ProcessGroupNCCL.cpp:685] [Rank 0] Watchdog caught collective operation timeout: Work\n"
    "[rank0]:[E907 03:03:03.2 ProcessGroupNCCL.cpp:2252] [PG ID 2 Rank 0]  failure detected by watchdog at work 47"
)
SUBPROCESS = "torch._inductor.exc.InductorError: SubprocException: An exception occurred in a subprocess:"


LOGS = [
    (aborted("CUDA error: CUDA_ERROR_ILLEGAL_ADDRESS"), 87, "illegal-memory-access", "CUDA_ERROR_ILLEGAL_ADDRESS"),
    (aborted("CUDAError: nobody knows this"), 87, "", "what():  CUDAError: nobody knows this"),
    (printed("Worker_TP0", WATCHDOG) + aborted("NCCL error"), 83, "ranks-wait-for-each-other", "Watchdog caught"),
    (worker("RuntimeError: \nhead_dim=576 needs 64.\nGot 256."), 87, "", "RuntimeError: head_dim=576 needs 64."),
    (worker(f"{SUBPROCESS}\n\n{TRACEBACK}\nValueError: K=8"), 87, "inductor-failed", "subprocess: ValueError: K=8"),
    (
        logged("RayWorkerProc", f"Error executing method 'load_model'.\n{TRACEBACK}\nAssertionError: 48 is odd"),
        87,
        "",
        "AssertionError: 48 is odd",
    ),
    (
        logged("RayWorkerProc", f"RayWorkerProc failed: 48 is odd\n{TRACEBACK}\nAssertionError: 48 is odd"),
        87,
        "",
        "AssertionError: 48 is odd",
    ),
    (
        worker(f"{NCCL}\nncclSystemError: System call failed.\nLast error:\nBootstrap : no socket interface found"),
        69,
        "no-network-interface",
        "no socket interface found",
    ),
    (
        worker(f"{NCCL}\nLast error:\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device 41000"),
        69,
        "ranks-share-a-gpu",
        "Duplicate GPU detected",
    ),
    (
        worker(
            "RuntimeError: Ninja build failed. Ninja output:\n[1/3] c++ -c a.cpp\nFAILED: a.o\n"
            "c++: internal compiler error: Segmentation fault signal terminated program cc1plus"
        ),
        87,
        "compiler-crashed",
        "internal compiler error",
    ),
    (
        worker(
            "RuntimeError: Ninja build failed. Ninja output:\n/usr/bin/ld: final link failed: No space left on device"
            "\ncollect2: error: ld returned 1 exit status"
        ),
        69,
        "disk-full",
        "final link failed: No space left on device",
    ),
    (
        printed("APIServer", f"{TRACEBACK}\nRuntimeError: Process ApiServer_1 (PID: 77) died with exit code -9"),
        87,
        "killed",
        "ApiServer_1",
    ),
    (as_json("NotImplementedError: needs SM 8.9"), 87, "", "NotImplementedError: needs SM 8.9"),
    (
        worker("RuntimeError: unable to write to file </torch_5_38_0>: No space left on device (28)"),
        69,
        "shared-memory-full",
        "torch_5_38_0",
    ),
    ("\nlibgomp: Thread creation failed: Resource temporarily unavailable\n", 69, "too-few-processes", "libgomp"),
    (
        "OMP: Error #34: System unable to allocate necessary resources for OMP thread:\nOMP: System error #11: x\n",
        69,
        "too-few-processes",
        "OMP: Error #34",
    ),
]


@pytest.mark.parametrize(("log", "status", "failure", "root"), LOGS, ids=[root for *_, root in LOGS])
def test_the_line_that_says_why_is_the_root(log: str, status: int, failure: str, root: str) -> None:
    found = read((log + echoes()).encode(), was_ready=False)
    assert (found.cause.exit_status, found.failure) == (status, failure)
    assert root in found.root


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        ("RuntimeError: Triton Error [CUDA]: out of memory", "cuda-out-of-memory"),
        ("RuntimeError: CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY", "cuda-out-of-memory"),
        ("torch.AcceleratorError: CUDA error: the provided PTX was compiled with an unsupported toolchain.", "driver-too-old"),
        ("RuntimeError: nvrtc: error: invalid value for --gpu-architecture (-arch)", "compiler-too-old"),
        ("BlockingIOError: [Errno 11] Resource temporarily unavailable", "too-few-processes"),
        ("RuntimeError: Resource temporarily unavailable", "too-few-processes"),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(", "illegal-memory-access"),
        ("torch.AcceleratorError: CUDA error: an illegal instruction was encountered", "illegal-memory-access"),
        ("KeyError: 'getpwuid(): uid not found: 1234'", "user-without-a-name"),
        ("RuntimeError: Gloo connectFullMesh failed with [pair.cc:144] no error", "no-network-interface"),
        ("RuntimeError: ifa != nullptr. Unable to find address for: ib0", "no-network-interface"),
    ],
)  # fmt: skip
def test_one_failure_has_many_messages(error: str, failure: str) -> None:
    assert read((worker(error) + echoes()).encode(), was_ready=False).failure == failure


def test_what_follows_an_error_of_a_capture_is_not_the_root_though_it_came_first() -> None:
    error = "torch.AcceleratorError: CUDA error: operation failed due to a previous error during capture"
    first = logged("Worker_TP1", f"WorkerProc failed to start.\n{TRACEBACK}\n{error}", "09-07 03:03:01")
    found = read((first + worker("RuntimeError: CUDA error: x is not permitted when stream is capturing")).encode())
    assert "not permitted when stream is capturing" in found.root
    assert found.failure == "graph-capture-failed"


def test_a_kernel_that_the_driver_rejects_is_not_said_to_be_deepgemms() -> None:
    found = read(worker("RuntimeError: Triton Error [CUDA]: device kernel image is invalid").encode(), was_ready=False)
    assert "such as one of DeepGEMM" in found.sentence


NINJA = "RuntimeError: Ninja build failed. Ninja output:\n[1/3] c++ -c a.cpp\nFAILED: a.o\na.cpp:1: error: y"
DIRECT = "\n\nThe above exception was the direct cause of the following exception:\n\n"


@pytest.mark.parametrize(
    ("error", "root"),
    [
        (NINJA, "RuntimeError: Ninja build failed: a.cpp:1: error: y (while building a.o)"),
        (f"KeyError: 'a'{DIRECT}{TRACEBACK}\nRuntimeError:\nbelow\nmore", "RuntimeError: below"),
        (f"KeyError: 'a'{DIRECT}{TRACEBACK}\n{SUBPROCESS}\n\n{TRACEBACK}\nValueError: K=8", f"{SUBPROCESS} ValueError: K=8"),
        (f"RuntimeError: \n{'x' * 3000}", f"RuntimeError: {'x' * 486}"),
        ("AssertionError\nafterwards", "AssertionError: run()"),
    ],
    ids=["a compiler", "a chain", "a subprocess", "a long line", "a bare assertion"],
)  # fmt: skip
def test_the_whole_root(error: str, root: str) -> None:
    assert read(worker(error).encode(), was_ready=False).root == root
