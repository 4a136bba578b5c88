"""
Read tracebacks as Python prints them: frames, the exception, the lines of its message, and the chain that it ends.

One reader follows one writer: the process and the place in vLLM's source that logged it. Lines that no logger wrote
share a reader.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field

from . import standing
from .reasons import LENGTH, Message
from .standing import Standing

# Headlines of tracebacks that end a process of the engine: v1/engine/core.py, v1/engine/async_llm.py,
# v1/executor/{multiproc_executor,ray_executor_v2,ray_utils}.py, v1/utils.py; Python's multiprocessing.
FATAL = re.compile(
    r"EngineCore (failed to start|encountered a fatal error)|(Ray)?WorkerProc (failed|hit an exception)"
    r"|Error executing method |AsyncLLM output_handler failed"
    r"|Worker proc \S+ died unexpectedly|Exception occurred while running API servers"
    r"|Process \S+:$"
)
# Headlines of tracebacks that a process survives: uvicorn, threading, asyncio.
SURVIVED = re.compile(r"Exception in|Task exception was never|Exception ignored|Future exception|Error in ")
_BEGINS = re.compile(r"(Exception Group )?Traceback \(most recent call last\)")
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_EXCEPTION = re.compile(r"(?:(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*|[A-Z]\w*)(?::(?: |$)|$)")
_FRAME = re.compile(r'  File ".*", line \d+, in (\S+)')
_GROUPED = re.compile(r"^ +[|+] ?")  # lines within an exception group
_RANK = re.compile(r"\[rank\d+\]: ")  # PyTorch's excepthook puts it before each line


@dataclass
class Link:
    """One exception of a chain."""

    message: Message
    cleaning: bool = False
    """Whether it was met in a function that cleans up."""

    @property
    def text(self) -> str:
        """The exception and why, on one line."""
        return self.message.text()

    @functools.cached_property
    def standing(self) -> Standing:
        """What it stands for."""
        return standing.of(self.message.headline[: 2 * LENGTH], cleaning=self.cleaning)

    @property
    def hollow(self) -> bool:
        """Whether it only wraps another one: it has no message, or a general one and no reason below it."""
        message = self.message
        bare = message.bare and not message.code.startswith("assert ")
        return bare or (standing.wraps(message.headline) and not (message.reason or message.details))


@dataclass
class Failure:
    """A chain of exceptions, oldest first, or one line of an error; its line in the log, its time, and its process."""

    links: list[Link]
    number: int
    fatal: bool
    time: str = ""
    in_thread: bool = False
    """Whether a thread ended with it; its process may have survived."""
    printed: list[str] = field(default_factory=list)
    """What compilers and kernels had printed by themselves, shortly before."""

    @property
    def root(self) -> Link:
        """The last link, which Python let pass; an earlier one where later ones only wrap it, or follow from it."""
        solid = [link for link in self.links if not link.hollow] or self.links
        best = min(link.standing for link in solid)
        return next(link for link in reversed(solid) if link.standing == best)

    @property
    def standing(self) -> Standing:
        """What it stands for."""
        return self.root.standing

    def texts(self) -> list[str]:
        """Return the root, then the other links, as they may say more: the newest first; never an echo."""
        root = self.root
        others = [link for link in reversed(self.links) if link is not root and link.standing is Standing.CAUSE]
        return [root.text, *(link.text for link in others)]


@dataclass
class TracebackReader:
    """The state of one writer."""

    headline: str = ""
    headed: int = 0
    """Line number of the headline."""
    failure: Failure | None = None
    """The last chain, whose message may go on."""
    ended: int = 0
    """Line number of its last exception line."""
    _tracing: bool = False
    _chained: bool = False
    _announced: bool = False  # whether the last line of a message, and not Python, chained what follows
    _cleaning: bool = False
    _code: str = ""  # the last line of source: all that a bare assert shows
    _warned: bool = False
    _grouped: bool = False
    _last: str = ""  # a line that ends with a colon announces the traceback of another process

    def feed(self, text: str, number: int, level: str, time: str) -> Failure | None:
        """Take one line; return a failure when a new one begins here."""
        text = _RANK.sub("", text)
        inner = _GROUPED.sub("", text)
        if _BEGINS.match(inner):
            self._grouped = inner != text
            self._announced = not self._chained and self._last.endswith(":") and self.failure is not None
            self._chained = self._chained or self._announced
            self._begin(level)
        elif text.startswith(_CHAINED):
            self._chained, self._tracing = bool(self.failure), False
        elif self._tracing:
            return self._traced(inner if self._grouped else text, number, time)
        elif self.failure:
            self.failure.links[-1].message.feed(text)
            self._last = text.rstrip() or self._last
        return None

    @property
    def reading(self) -> bool:
        """Whether a traceback is being read: its lines are no errors of their own."""
        return self._tracing or self._chained

    def head(self, text: str, number: int) -> None:
        """Take the line that announces a traceback; it ends what was before it."""
        self.headline, self.headed, self.failure = text, number, None
        self._chained = self._tracing = False
        self._last = ""

    def _begin(self, level: str) -> None:
        self._warned = level == "WARNING"  # a process survives what is only a warning
        self._tracing, self._cleaning, self._code = True, False, ""
        if self.headed < self.ended and not self._chained:
            self.headline = ""  # it belonged to the previous traceback

    def _traced(self, text: str, number: int, time: str) -> Failure | None:
        if frame := _FRAME.match(text):
            self._cleaning |= standing.cleans_up(frame[1])
        elif text.startswith("    ") and text.strip(" ^~"):
            self._code = text.strip()
        if not _EXCEPTION.match(text):
            return None
        text = text.rstrip()
        bare = not re.search(r": \S", text)
        headline = f"{text.rstrip(':')}: {self._code}" if bare else text
        announced = text if bare and text.endswith(":") else ""
        link = Link(Message(headline[: 4 * LENGTH], code=self._code, bare=bare, announced=announced), self._cleaning)
        self._last = text
        self._tracing, self.ended = False, number
        if self._warned:
            self.failure = None
            return None
        if self._chained and self.failure:
            self._chained = False
            if self._announced:
                self.failure.links[-1].message.details.append(text)
            self.failure.links.append(link)
            return None
        self._chained = False
        fatal = not self.headline or bool(FATAL.match(self.headline))
        self.failure = Failure([link], number, fatal, time, self.headline.startswith("Exception in thread"))
        return self.failure
