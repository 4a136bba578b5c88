"""The sections of the report, each from the results of one kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..bench import goodput, measure, plot
from ..evals.text import share
from ..replica_description import gpus
from .eval_plot import shares
from .parts import Cell, Code, Folded, Level, Part, Quality, Section, Speed, Table, Text, Verdict
from .summary import QUALITY

Result = Mapping[str, Any]
_LAYOUTS: Mapping[str, Level] = {"served": "good", "refused": "good", "reported": "good", "failed": "bad"}
_CHECKS: Mapping[str, Level] = {"passed": "good", "failed": "bad", "inconclusive": "open"}
_PATCHES: Mapping[str, Level] = {"applied": "good", "drifted": "bad"}
_TUNED: Mapping[str, Level] = {"wins": "good"}
_MOST_LINES = 4
"""In a plot; tables hold the rest."""


def sections(results: Sequence[Result]) -> tuple[Section, ...]:
    """Return every section that is not empty."""
    makers = {
        "qualify": qualify,
        "smoke": smoke,
        "eval": evaluations,
        "bench": bench,
        "tune": tuning,
        "layout": layouts,
        "faults": faults,
    }
    of_kinds = {kind: [result for result in results if result["kind"] == kind] for kind in makers}
    made = [make(of_kinds[kind]) for kind, make in makers.items() if of_kinds[kind]]
    return (*made, machines(results), *patches(results))


def machines(results: Sequence[Result]) -> Section:
    """Return what the results were measured on, with the versions, and how many there are of each."""
    counts = Counter((_hardware(result), _versions(result), result["kind"]) for result in results)
    rows = tuple((hardware, versions, f"{number} {kind}") for (hardware, versions, kind), number in counts.items())
    return Section("Measured on", (Table(("machine", "versions", "results"), rows),))


def patches(results: Sequence[Result]) -> list[Section]:
    """Return each patch, by its content, with its states and the number of results that name it."""
    counts = Counter(
        (patch["name"], patch["sha256"], patch["state"])
        for result in results
        for patch in (result.get("patches") or result.get("replica", {}).get("patches") or {}).get("patches", [])
    )
    rows = tuple(
        (name, Code(sha[:12]), Verdict(state, _PATCHES.get(state, "none")), number)
        for (name, sha, state), number in sorted(counts.items())
    )
    table = Table(("patch", "SHA-256", "state", "results"), rows)
    applied = sum(state == "applied" for _, _, state in counts)
    title = f"{applied} of {len(counts)} applied"
    return [Section("Patches of vLLM", (Folded(title, (table,)),))] if rows else []


def layouts(results: Sequence[Result]) -> Section:
    """Return how constructed checkpoints loaded and drafted."""
    ordered = sorted(
        results, key=lambda run: (run["stock"], run["mtp"] != "good", run["layout"], run["mtp"], run["tp"])
    )
    head = ("layout", "draft head", "TP", "vLLM", "result", "correct tokens", "drafts accepted")
    return Section("Draft gate: constructed checkpoints", (Table(head, tuple(map(_layout, ordered))),))


def _layout(run: Result) -> tuple[Cell, ...]:
    level = "none" if run["stock"] else _LAYOUTS.get(run["result"], "none")
    return (
        run["layout"],
        run["mtp"],
        run["tp"],
        "stock" if run["stock"] else "patched",
        Verdict(run["result"], level),
        f"{run['right']}/{run['asked']}" if "right" in run else "",
        f"{run['accepted']}/{run['drafted']}" if "accepted" in run else "",
    )


def faults(results: Sequence[Result]) -> Section:
    """Return each injected fault, how soon it was noticed, and how it ended."""
    head = ("fault", "not ready after", "ended after", "status", "last message")
    parts: list[Part] = []
    for result in results:
        rows = tuple(
            (fault["fault"], _seconds(fault["unready"]), _seconds(fault["ended"]), fault["status"], fault["words"])
            for fault in result["faults"]
        )
        parts += [_origin(result), Table(head, rows)]
    return Section("Faults", tuple(parts))


def smoke(results: Sequence[Result]) -> Section:
    """Return every check of each smoke test, the newest first."""
    return Section("Smoke tests", tuple(_checks(results, "check")))


def qualify(results: Sequence[Result]) -> Section:
    """Return every stage of each qualification, the newest first."""
    return Section("Qualification", tuple(_checks(results, "stage")))


def _checks(results: Sequence[Result], what: str) -> Iterator[Part]:
    shown, older = _newest_first(results)
    for result in (*shown, *older):
        fixes = any(check.get("fix") for check in result["checks"])
        rows = tuple(_check(check, fixes=fixes) for check in result["checks"])
        columns = Table((what, "verdict", "time", "seen", *(["what to do"] if fixes else [])), rows)
        parts = (_origin(result, str(result.get("verdict", ""))), columns)
        yield from parts if result in shown else (_folded(result, parts),)


def _check(check: Mapping[str, Any], *, fixes: bool) -> tuple[Cell, ...]:
    verdict = Verdict(check["verdict"], _CHECKS.get(check["verdict"], "none"))
    seen = (check["name"], verdict, _seconds(check.get("seconds")), check.get("seen"))
    return (*seen, check.get("fix")) if fixes else seen


def bench(results: Sequence[Result]) -> Section:
    """Return the speed by batch size: the plot of the newest results, and the figures of each."""
    shown, older = _newest_first([result for result in results if result["rows"]])
    whole = [result for result in shown if not result.get("failed")] or shown
    parts: list[Part] = [Speed(plot.plot(whole, _MOST_LINES))] if whole else []
    for number, result in enumerate((*shown, *older)):
        weights = f"weights: {result.get('weights', 'not recorded')}"
        headings, *rows = measure.lines(result["rows"])
        limits = result.get("goodput")
        closing = [Text(goodput.summary(result["rows"], limits))] if limits else []
        about: tuple[Text | Table, ...] = (_origin(result, weights), Table(headings, tuple(rows)), *closing)
        parts += about if number < _MOST_LINES and result in shown else (_folded(result, about),)
    return Section("Speed", tuple(parts))


def tuning(results: Sequence[Result]) -> Section:
    """Return what `dsv4 tune` tried, the newest first."""
    parts: list[Part] = []
    for result in reversed(results):
        rows = tuple(
            (one["name"], Verdict(one["verdict"], _TUNED.get(one["verdict"], "none")), _gain(one), one["because"])
            for one in result["candidates"]
        )
        best = ", ".join(result["best"]) or "no change"
        parts += [
            _origin(result, f"best: {best}, {result['gain']:.1%} faster"),
            Table(("change", "verdict", "faster by", "because"), rows),
        ]
    return Section("Tuning", tuple(parts))


def _gain(candidate: Mapping[str, Any]) -> str:
    return f"{candidate['gain']:.1%}" if "gain" in candidate else ""


def evaluations(results: Sequence[Result]) -> Section:
    """Return the quality: the plot, and every metric with its published figures."""
    head = ("task, mode, model", "correct (95% interval)", "verdict", "published", "metric", "settings", "cut", "date")
    rows = tuple(row for result in reversed(results) for row in _evaluation(result))
    shown, _ = _newest_first(results)
    return Section("Quality", (Quality(shares(shown)), Table(head, rows)))


def _newest_first(results: Sequence[Result]) -> tuple[list[Result], list[Result]]:
    """Return the newest result of each subject, and all others."""
    newest = {result["subject"]: result for result in results}
    ordered = list(reversed(results))
    shown = [result for result in ordered if newest[result["subject"]] is result]
    return shown, [result for result in ordered if newest[result["subject"]] is not result]


def _folded(result: Result, parts: tuple[Text | Table, ...]) -> Folded:
    return Folded(f"{result['subject']}, {result['date'][:10]}", parts)


def _evaluation(result: Result) -> Iterator[tuple[Cell, ...]]:
    subject: Cell = result["subject"]
    for score in result["scores"]:
        right: Cell = share(score)
        for figure in score["published"] or [None]:
            verdict = _verdict(figure and figure["verdict"])
            published = (share(figure), f"{figure['settings']} ({figure['source']})") if figure else ("", "")
            yield (
                subject,
                right,
                verdict,
                published[0],
                score["metric"],
                published[1],
                result["cut"],
                result["date"][:10],
            )
            subject, right = "", ""


def _verdict(word: str | None) -> Verdict:
    return Verdict(word or "nothing published to compare with", QUALITY.get(word or "", "none"))


def _origin(result: Result, more: str = "") -> Text:
    parts = (result.get("subject"), _hardware(result), _versions(result), result["date"], more)
    return Text("; ".join(str(part) for part in parts if part))


def _hardware(result: Result) -> str:
    if "hardware" in result:
        return str(result["hardware"])
    machine = result.get("replica", {}).get("machine", {})
    if named := gpus(machine):
        return ", ".join(named)
    return f"{machine['cpu']}, {machine['cores']} cores" if "cpu" in machine else "unknown"


def _versions(result: Result) -> str:
    versions = result.get("versions") or result.get("replica", {}).get("versions") or {"vllm": result.get("vllm", "")}
    return ", ".join(f"{name} {versions[name]}" for name in ("vllm", "torch", "dsv4-serve") if versions.get(name))


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"
