"""What `dsv4 tune` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import text_table
from .candidates import TuneCandidate
from .outcome import FAILED, UNDECIDED, WAITS

_LATENCIES = (("tpot_p50", 2), ("ttft_p50", 0))


def proposal(candidates: Sequence[TuneCandidate], left_out: Mapping[str, str], batches: Sequence[int]) -> str:
    """Return what would be tried, in order, and what would not."""
    lines = [("candidate", "predicted", "why"), *((one.name, predicted(one.gain), one.because) for one in candidates)]
    head = f"for batch {', '.join(map(str, batches))}"
    parts = [head, text_table.table(lines) if candidates else "nothing is left to try", *_left_out(left_out)]
    return "\n".join(parts)


def predicted(gain: float | None) -> str:
    """Return a prediction."""
    return "unknown" if gain is None else f"{gain:+.1%}"


def _left_out(left_out: Mapping[str, str]) -> Iterator[str]:
    if left_out:
        yield "\nnot tried:"
    yield from (f"  {name}: {why}" for name, why in left_out.items())


def outcome(result: Mapping[str, Any]) -> str:
    """Return what became of every candidate, before and after, and what was written."""
    rows = [("candidate", "predicted", "measured", "starts", "verdict")]
    rows += [
        (
            one["name"],
            predicted(one["predicted"]),
            f"{one['gain']:+.1%}" if "gain" in one else "-",
            str(one.get("starts", "-")),
            _verdict(one),
        )
        for one in result["candidates"]
    ]
    return "\n".join([text_table.table(rows), "", *_end(result)])


def _verdict(one: Mapping[str, Any]) -> str:
    if one["verdict"] == FAILED:
        return f"failed: {one['why']}"
    if "batches" in one:
        return f"slower at batch {', '.join(map(str, one['batches']))}"
    return str(one["verdict"])


def _end(result: Mapping[str, Any]) -> Iterator[str]:
    noise = result["noise"]
    counted = sum(not start["failed"] for start in result["starts"])
    starts = "1 start that counts" if counted == 1 else f"{counted} starts that count"
    deviation = f"{noise['deviation']:.1%} from start to start" if noise["freedom"] else "unknown, too few starts"
    yield f"noise: {deviation}; {starts} in {result['spent_seconds'] / 60:.0f} minutes"
    if not result["finished"]:
        rest = "".join(f"; {label}: {', '.join(names)}" for label, names in _open(result) if names)
        yield f"time is up{rest}; the same command with --hours {result['enough_hours']:.1f} continues, and can decide"
    if not result["best"]:
        why = "nothing was faster beyond the noise" if result["finished"] else "nothing is decided yet"
        yield f"Keep what you have: {why}."
    else:
        lines: list[tuple[str, ...]] = [
            ("batch", "tok/s before", "after", "", "TPOT p50 ms", "after", "TTFT p50 ms", "after")
        ]
        lines += [_compared(*pair) for pair in zip(result["before"], result["after"], strict=True)]
        yield text_table.table(lines)
        best = f"{' + '.join(result['best'])}: {result['gain']:+.1%}"
        yield f"{best}; a difference below {result['threshold']:.1%} is noise"
        yield f"profile: {result['profile']}"
    yield f"result: {result['file']}"


def _open(result: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for verdict, label in ((WAITS, "not yet tried"), (UNDECIDED, "not yet decided")):
        yield label, [one["name"] for one in result["candidates"] if one["verdict"] == verdict]


def _compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    then, now = before["output_tokens_per_second"], after["output_tokens_per_second"]
    pairs = (f"{one[name]:.{places}f}" for name, places in _LATENCIES for one in (before, after))
    return (str(before["batch"]), f"{then:.2f}", f"{now:.2f}", f"{now / then - 1:+.1%}", *pairs)
