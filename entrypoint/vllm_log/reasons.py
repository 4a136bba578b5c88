"""
Say why, in a message of many lines: the compiler's error, the failed assertion, the field that is wrong.

An exception of a compiler or a validator has its reason below its first line, among commands, source code and hints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

LENGTH = 500
"""Characters of a note that are kept."""
DETAILS = 6
"""Lines of a message that are kept, hints and rules apart."""

_CLEAR = re.compile(
    r"\bfatal error\b ?[:#]|\b(nvcc|ptxas|nvlink) (fatal|error)\s*:|\bcatastrophic error\b|cannot find -l"
    r"|undefined (reference|symbol)|command not found|: not found$|Caused (by )?exception: "
    r"|\berror: cannot open source file|^Killed$|died due to signal|^Cuda failure |final link failed"
)
_ERROR = re.compile(
    r"(^|[\s):\]])error( #?[\w-]+)?: |\bAssertion .+ failed|Check failed: |^\S*: No such file or directory"
    r"|^(E\s+)?([\w.]+\.)?[A-Z]\w*(Error|Exception|ErrorImpl)\b ?[:(]|^(ninja|ld|CMake): [Ee]rror"
)
_WEAK = re.compile(r"collect2: error|error: command |ld returned \d+ exit|ninja: error: loading|errors? detected")
_HINT = re.compile(
    r"Set TORCHDYNAMO|Search for `cuda|CUDA kernel errors might|For debugging consider|Compile with `TORCH_USE"
    r"|Device-side assertion|You can suppress|For further information|\[\d+/\d+\] |FAILED: |Command:|Output:|\^|\$|cd "
)
_LAST_ERROR = "Last error:"  # PyTorch's NCCLUtils.cpp: what NCCL warned of last, on the next line
_ASSERTED = re.compile(r"(?P<file>\S+:\d+): .*(?P<what>Assertion .+ failed\.?)")
_MODULE = (
    re.compile(r"""(?:Entering directory [`']|'-C', ')(?:[^'`]*/)?([\w.+-]+)'"""),  # ninja; its command
    re.compile(
        r"(?:building extension|JIT module|compile kernel|for function) [`'\"]?([\w.:-]+?)[`'\";.]*(?:\s|$)",
        re.IGNORECASE,
    ),
)
_UNDERLINED = re.compile(r"[ ~]*\^[ ~^]*")  # Triton marks the place in the source, and says why on the next line
_PLACED = re.compile(r": at \d+:\d+:$")
_STEP = re.compile(r"FAILED: (?:\[code=\d+\] )?(\S+)")
_VALIDATION = re.compile(r" validation errors? for ")


@dataclass
class Message:
    """The first line of an exception's message, and what the lines below it say; of many lines it keeps a few."""

    headline: str
    reason: str = ""
    rank: int = 0
    module: str = ""
    step: str = ""
    code: str = ""
    """The last line of source in its traceback."""
    bare: bool = False
    """Whether the exception has no message of its own."""
    announced: str = ""
    """The exception's class where its message begins on the next line."""
    details: list[str] = field(default_factory=list)
    _underlined: bool = False
    _before: str = ""

    def feed(self, line: str) -> None:
        """Take one line below the headline."""
        text = line.strip()
        if self.announced and text:
            self.headline, self.bare, self.announced = f"{self.announced} {text}"[: 4 * LENGTH], False, ""
        self._find_module(text)
        if not self.step and (match := _STEP.match(text)):
            self.step = match[1]
        rank = grade(line)
        if text and (self._underlined or self._before == _LAST_ERROR):
            rank = max(rank, 2)
        self._before = text
        self._underlined = self._underlined or (
            bool(_UNDERLINED.fullmatch(line)) and bool(_PLACED.search(self.headline.rstrip()))
        )
        if rank > self.rank:
            self.reason, self.rank = text, rank
        if len(self.details) < DETAILS and text and not _HINT.match(text) and text.strip("^~-| "):
            self.details.append(text)

    def text(self) -> str:
        """Return the headline, the reason and what was being built, on one line."""
        headline = re.sub(r"[.:]? ?(Ninja|Compiler|Build) output:?$", "", self.headline.strip())
        found = self._found(headline)
        if not found:
            return headline[:LENGTH]
        separator = " " if headline.endswith(":") or _VALIDATION.search(headline) else ": "
        return f"{_cut(headline, LENGTH // 2)}{separator}{_cut(found, LENGTH // 2)}{self._building(found)}"

    def _found(self, headline: str) -> str:
        if _VALIDATION.search(headline):
            return " ".join(self.details)
        if self.reason and self.reason not in headline:
            return self.reason
        return (self.details or [self.code])[0] if headline.endswith((":", "raised")) else ""

    def _building(self, found: str) -> str:
        self._find_module(self.headline)
        step = self.step if self.step not in found else ""
        built = ", ".join(part for part in (self.module, step) if part)
        return f" (while building {built})" if built and self.rank > 0 else ""

    def _find_module(self, text: str) -> None:
        for pattern in _MODULE:
            if not self.module and (match := pattern.search(text)):
                self.module = match[1]


def grade(line: str) -> int:
    """Return how surely a line says why: 3 for a compiler's fatal error, 2 for an error, 1 for its echo, 0 for none."""
    text = line.strip()
    if len(text) > 2000 or _HINT.match(text):
        return 0
    if _CLEAR.search(text):
        return 3
    if _WEAK.search(text):
        return 1
    return 2 if _ERROR.search(text) else 0


def asserted(line: str) -> str:
    """Return the assertion that a kernel printed before it ended, without its block and thread; else nothing."""
    match = _ASSERTED.search(line)
    return f"{match['file']}: {match['what']}" if match else ""


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
