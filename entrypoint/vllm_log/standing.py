"""Tell what an error stands for: a cause, a consequence of another failure, or an echo of one."""

from __future__ import annotations

import re
from enum import IntEnum, auto


class Standing(IntEnum):
    """The lower, the likelier it is the cause."""

    CAUSE = auto()
    CONSEQUENCE = auto()
    """What a process meets because another one failed; the cause only where nothing else is there."""
    ECHO = auto()
    """What is logged only because something else failed."""


# v1/engine/{utils,exceptions,core_client}.py, v1/executor/, entrypoints/; every stream that runs leaves one
_ECHO = re.compile(
    r"(Engine core|WorkerProc|Frontend process) (initialization )?failed|Executor failed|RuntimeError: cancelled"
    r"|EngineCore encountered an issue|Worker failed with error|Engine core process \S+ died|Engine(Generate|Dead)Error"
    r"|engine core exited unexpectedly|KeyboardInterrupt|SystemExit|Process \S+ \(PID: \d+\) died"
    r"|Worker proc \S+ died unexpectedly|terminate called after|CancelledError|ExceptionGroup: "
    r"|Error in .*(stream|completion|chat|response|generat)|Error (while )?(processing|handling) (the )?request"
    r"|[Ss]ee (the )?(stack trace|root cause)|check the stack trace above"
)
# Peers that are gone, time-outs of those who waited, pipes that nobody reads; PyTorch, CUDA, NCCL, Gloo, ZeroMQ, Python
_CONSEQUENCE = re.compile(
    r"NCCL error|nccl(System|Internal|Remote|UnhandledCuda)Error|Dist(Backend|Network|Store)Error|remote process exited"
    r"|RPC call to \w+ timed out|collective operation timeout|failure detected by watchdog|TCPStore|HeartbeatMonitor"
    r"|[Hh]eartbeat"
    r"|\b(BrokenPipe|ConnectionReset|ConnectionRefused|ConnectionAborted|EOF)Error|Broken pipe"
    r"|(pipe|socket|connection|handle|file) (is|was|has been)? ?closed|closed (pipe|file|by (the )?(peer|remote))"
    r"|Connection (reset|closed|refused)|zmq\.error|ZMQError|gloo.*(Timed out|recv|send)|Timed out waiting"
    r"|peer .*(gone|lost|died)|due to a previous error"
)
_NAMES_CAUSE = re.compile(
    r"No space left|Read-only file|/dev/shm|failed to listen|EADDRINUSE|[Aa]ddress already in use"
)  # a consequence by its class, a cause by its reason
_WRAPPER = re.compile(
    r"CalledProcessError|returned non-zero exit status|Ninja build failed|Error building extension"
    r"|Compilation [Ff]ailed"
)
_CLEANING = re.compile(
    r"clean_?up|shutdown|rmtree|unlink|finali[sz]e|destroy|teardown|__del__|_exitfunc|close|terminate|atexit"
)
_FILES = re.compile(r"(PermissionError|OSError|FileNotFoundError|AttributeError)\b")


def of(text: str, *, cleaning: bool) -> Standing:
    """Return the standing of an error's text; `cleaning` is whether it was met while cleaning up."""
    if _ECHO.search(text):
        return Standing.ECHO
    if (cleaning and _FILES.match(text)) or (_CONSEQUENCE.search(text) and not _NAMES_CAUSE.search(text)):
        return Standing.CONSEQUENCE
    return Standing.CAUSE


def wraps(text: str) -> bool:
    """Tell whether an exception of this text only says that a program failed, so that the reason stands elsewhere."""
    return bool(_WRAPPER.search(text))


def cleans_up(function: str) -> bool:
    """Tell whether a function of this name cleans up."""
    return bool(_CLEANING.search(function))
