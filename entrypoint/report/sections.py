"""The sections of the report, each from the results of one kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..bench import measure, plot
from ..evals import evaluate
from ..evals.text import share
from .eval_plot import shares
from .parts import Cell, Code, Line, Quality, Section, Speed, Table, Text, Verdict

Result = Mapping[str, Any]
_LAYOUTS = {"served": True, "refused": True, "reported": True, "failed": False}
_SMOKE = {"passed": True, "failed": False}
_QUALITY = {"same": True, "better": True, "worse": False}


def sections(results: Sequence[Result]) -> list[Section]:
    """Return every section that is not empty."""
    makers = {
        "qualify": qualify,
        "eval": evaluations,
        "bench": bench,
        "smoke": smoke,
        "layout": layouts,
        "faults": faults,
    }
    made = [machines(results), *patches(results)]
    for kind, make in makers.items():
        if of_kind := [result for result in results if result["kind"] == kind]:
            made.append(make(of_kind))
    return made


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
        (name, Code(sha[:12]), Verdict(state, state == "applied"), number)
        for (name, sha, state), number in sorted(counts.items())
    )
    return [Section("Patches of vLLM", (Table(("patch", "SHA-256", "state", "results"), rows),))] if rows else []


def layouts(results: Sequence[Result]) -> Section:
    """Return how constructed checkpoints loaded and drafted."""
    ordered = sorted(
        results, key=lambda run: (run["stock"], run["mtp"] != "good", run["layout"], run["mtp"], run["tp"])
    )
    head = ("layout", "draft head", "TP", "vLLM", "result", "correct tokens", "drafts accepted")
    return Section("Draft gate: constructed checkpoints", (Table(head, tuple(map(_layout, ordered))),))


def _layout(run: Result) -> tuple[Cell, ...]:
    good = None if run["stock"] else _LAYOUTS.get(run["result"])
    return (
        run["layout"],
        run["mtp"],
        run["tp"],
        "stock" if run["stock"] else "patched",
        Verdict(run["result"], good),
        f"{run['right']}/{run['asked']}" if "right" in run else "",
        f"{run['accepted']}/{run['drafted']}" if "accepted" in run else "",
    )


def faults(results: Sequence[Result]) -> Section:
    """Return each injected fault, how soon it was noticed, and how it ended."""
    head = ("fault", "not ready after", "ended after", "status", "last message")
    parts: list[Text | Table] = []
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


def _checks(results: Sequence[Result], what: str) -> Iterator[Text | Table]:
    for result in reversed(results):
        rows = tuple(
            (
                check["name"],
                Verdict(check["verdict"], _SMOKE.get(check["verdict"])),
                check.get("seen"),
                check.get("fix"),
                _seconds(check.get("seconds")),
            )
            for check in result["checks"]
        )
        yield _origin(result, str(result.get("verdict", "")))
        yield Table((what, "verdict", "seen", "fix", "time"), rows)


def bench(results: Sequence[Result]) -> Section:
    """Return the speed by batch size: the plot, and the figures of each result."""
    measured = [result for result in results if result["rows"]]
    parts: list[Text | Table | Speed] = [Speed(plot.plot(measured))] if measured else []
    for result in reversed(measured):
        weights = f"weights: {result.get('weights', 'not recorded')}"
        parts += [_origin(result, weights), Table(measure.HEADINGS, tuple(map(measure.cells, result["rows"])))]
    return Section("Speed", tuple(parts))


def evaluations(results: Sequence[Result]) -> Section:
    """Return the quality: the plot, and every metric with its published figures."""
    head = ("task, mode, model", "date", "cut", "metric", "correct (95% interval)", "published", "settings", "verdict")
    rows = tuple(row for result in reversed(results) for row in _evaluation(result))
    return Section("Quality", (Quality(shares(results)), Table(head, rows)))


def _evaluation(result: Result) -> Iterator[tuple[Cell, ...]]:
    names: tuple[Cell, ...] = (result["subject"], result["date"][:10], result["cut"])
    for score in result["scores"]:
        metric: tuple[Cell, ...] = (score["metric"], share(score))
        for figure in score["published"] or [None]:
            yield (*names, *metric, *_published(figure))
            names, metric = ("", "", ""), ("", "")
        names = ("", "", "")


def summary(results: Sequence[Result]) -> list[Line]:
    """Return one line for the newest result of each kind and subject."""
    newest = {(result["kind"], result["subject"]): result for result in results if "subject" in result}
    lines = [
        Line(f"{result['kind']}, {result['subject']}, {result['date'][:10]}", _in_short(result))
        for result in newest.values()
    ]
    layouts = [result for result in results if result["kind"] == "layout"]
    if served := [run for run in layouts if not run["stock"] and run["result"] != "cut"]:  # out of time: no verdict
        right = sum(_LAYOUTS.get(run["result"], False) for run in served)
        lines.append(Line("Draft gate", (Verdict(f"{right} of {len(served)} as expected", right == len(served)),)))
    return lines


def _in_short(result: Result) -> tuple[Cell, ...]:
    if result["kind"] == "eval":
        return share(result["scores"][0]), _verdict(evaluate.verdict(result))
    if result["kind"] in ("qualify", "canary"):
        return (Verdict(result["verdict"], result["ok"]),)
    if result["kind"] == "smoke":
        failed = [check["name"] for check in result["checks"] if check["verdict"] == "failed"]
        return (Verdict(f"failed: {', '.join(failed)}" if failed else "passed", not failed),)
    best = max((row["output_tokens_per_second"] for row in result.get("rows", [])), default=0)
    return (f"{best:.1f} output tokens/s at most",)


def _published(figure: Mapping[str, Any] | None) -> tuple[Cell, ...]:
    if figure is None:
        return "", "", _verdict(None)
    return share(figure), f"{figure['settings']} ({figure['source']})", _verdict(figure["verdict"])


def _verdict(word: str | None) -> Verdict:
    return Verdict(word or "nothing published to compare with", _QUALITY.get(word or ""))


def _origin(result: Result, more: str = "") -> Text:
    parts = (result.get("subject"), _hardware(result), _versions(result), result["date"], more)
    return Text("; ".join(str(part) for part in parts if part))


def _hardware(result: Result) -> str:
    if "hardware" in result:
        return str(result["hardware"])
    machine = result.get("replica", {}).get("machine", {})
    counts = Counter(gpu["name"] for gpu in machine.get("gpus", []))
    gpus = ", ".join(f"{number} x {name}" for name, number in counts.items())
    return gpus or (f"{machine['cpu']}, {machine['cores']} cores" if "cpu" in machine else "unknown")


def _versions(result: Result) -> str:
    versions = result.get("versions") or result.get("replica", {}).get("versions") or {"vllm": result.get("vllm", "")}
    return ", ".join(f"{name} {versions[name]}" for name in ("vllm", "torch", "dsv4-serve") if versions.get(name))


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"
