"""The sections of the report, each from the receipts of one kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..bench import measure, plot
from ..evals import evaluate
from ..evals.text import share
from . import eval_plot
from .html import Markup, element, section, table, text, verdict

Receipt = Mapping[str, Any]
_LAYOUTS = {"served": True, "refused": True, "reported": True, "failed": False}
_VERDICTS = {"same": True, "better": True, "worse": False}


def all_of(found: Sequence[Receipt]) -> list[Markup]:
    """Return every section that has something to show."""
    of = {
        kind: [one for one in found if one["kind"] == kind] for kind in ("layout", "faults", "smoke", "bench", "eval")
    }
    made = [machines(found), patches(found)]
    made += [make(of[kind]) for kind, make in _SECTIONS.items() if of[kind]]
    return [one for one in made if one]


def machines(found: Sequence[Receipt]) -> Markup:
    """Return what the receipts were measured on, with the versions, and how many there are of each."""
    counts = Counter((_hardware(one), _versions(one), one["kind"]) for one in found)
    rows = [(hardware, versions, f"{number} {kind}") for (hardware, versions, kind), number in counts.items()]
    return section("Measured on", table(("machine", "versions", "receipts"), rows))


def patches(found: Sequence[Receipt]) -> Markup:
    """Return each patch, by its content, with its states and the number of receipts that it stands in."""
    listed = [
        (one["name"], one["sha256"], one["state"])
        for receipt in found
        for one in (receipt.get("patches") or receipt.get("replica", {}).get("patches") or {}).get("patches", [])
    ]
    rows = [
        (name, element("code", sha[:12]), verdict(state, state == "applied"), number)
        for (name, sha, state), number in sorted(Counter(listed).items())
    ]
    return section("Patches of vLLM", table(("patch", "SHA-256", "state", "receipts"), rows)) if rows else Markup()


def layouts(found: Sequence[Receipt]) -> Markup:
    """Return how constructed checkpoints loaded and drafted."""
    rows = [
        (
            one["layout"],
            one["mtp"],
            one["tp"],
            "stock vLLM" if one["stock"] else "with the series",
            verdict(one["result"], None if one["stock"] else _LAYOUTS.get(one["result"])),
            f"{one['right']}/{one['asked']}" if "right" in one else "",
            f"{one['accepted']}/{one['drafted']}" if "accepted" in one else "",
        )
        for one in sorted(
            found, key=lambda one: (one["stock"], one["mtp"] != "good", one["layout"], one["mtp"], one["tp"])
        )
    ]
    head = ("layout", "draft head", "TP", "vLLM", "result", "tokens right", "drafts accepted")
    return section("MTP gate: constructed checkpoints", table(head, rows))


def faults(found: Sequence[Receipt]) -> Markup:
    """Return what was broken, how soon it was noticed, and how it ended."""
    tables = []
    for receipt in found:
        rows = [
            (one["fault"], _s(one["unready"]), _s(one["ended"]), one["status"], one["words"])
            for one in receipt["faults"]
        ]
        tables += [_where(receipt), table(("fault", "not ready after", "over after", "status", "last words"), rows)]
    return section("Faults", *tables)


def smoke(found: Sequence[Receipt]) -> Markup:
    """Return every check of each smoke test, the newest first."""
    words = {"passed": True, "failed": False}
    tables = []
    for receipt in reversed(found):
        rows = [
            (
                one["name"],
                verdict(one["verdict"], words.get(one["verdict"])),
                one.get("seen"),
                one.get("fix"),
                _s(one.get("seconds")),
            )
            for one in receipt["checks"]
        ]
        tables += [_where(receipt), table(("check", "verdict", "seen", "fix", "took"), rows)]
    return section("Smoke tests", *tables)


def bench(found: Sequence[Receipt]) -> Markup:
    """Return the speed by batch size: the plot, and the figures of each receipt."""
    measured = [one for one in found if one["rows"]]
    drawn = [element("figure", Markup(plot.svg(measured)), kind="paper")] if measured else []
    tables = []
    for receipt in reversed(measured):
        rows = list(map(measure.cells, receipt["rows"]))
        tables += [_where(receipt, f"weights: {receipt.get('weights', 'not said')}"), table(measure.HEADINGS, rows)]
    return section("Speed", *drawn, *tables)


def evaluations(found: Sequence[Receipt]) -> Markup:
    """Return the quality: the plot, and every metric beside the published figures."""
    rows = []
    for receipt in reversed(found):
        for number, score in enumerate(receipt["scores"]):
            name = (receipt["subject"], receipt["date"][:10], receipt["cut"]) if not number else ("", "", "")
            figures = score["published"] or [None]
            rows += [(*name, score["metric"], share(score), *_published(one)) for one in figures[:1]]
            rows += [("", "", "", "", "", *_published(one)) for one in figures[1:]]
    head = ("task, mode, model", "date", "cut", "metric", "right (95% interval)", "published", "settings", "verdict")
    return section("Quality", element("figure", Markup(eval_plot.svg(found))), table(head, rows))


_SECTIONS = {"eval": evaluations, "bench": bench, "smoke": smoke, "layout": layouts, "faults": faults}


def summary(found: Sequence[Receipt]) -> Markup:
    """Return one line for each kind: what the newest one says."""
    newest = {(one["kind"], one["subject"]): one for one in found if "subject" in one}
    lines = [
        element("li", f"{one['kind']}, {one['subject']}, {one['date'][:10]}: ", _in_short(one))
        for one in newest.values()
    ]
    good = [one for one in found if one["kind"] == "layout" and not one["stock"]]
    if good:
        right = sum(_LAYOUTS.get(one["result"], False) for one in good)
        lines.append(
            element("li", "MTP gate: ", verdict(f"{right} of {len(good)} as they have to be", right == len(good)))
        )
    return element("ul", *lines)


def _in_short(receipt: Receipt) -> Markup:
    if receipt["kind"] == "eval":
        return Markup(text(share(receipt["scores"][0])) + text(" ") + _word(evaluate.verdict(receipt)))
    if receipt["kind"] == "smoke":
        failed = [one["name"] for one in receipt["checks"] if one["verdict"] == "failed"]
        return verdict(f"failed: {', '.join(failed)}" if failed else "passed", not failed)
    best = max((row["output_tokens_per_second"] for row in receipt.get("rows", [])), default=0)
    return text(f"{best:.1f} output tokens/s at most")


def _published(figure: Mapping[str, Any] | None) -> tuple[object, ...]:
    if figure is None:
        return "", "", _word(None)
    return share(figure), f"{figure['settings']} ({figure['source']})", _word(figure["verdict"])


def _word(found: str | None) -> Markup:
    return verdict(found or "nothing published to compare with", _VERDICTS.get(found or ""))


def _where(receipt: Receipt, more: str = "") -> Markup:
    parts = (receipt.get("subject"), _hardware(receipt), _versions(receipt), receipt["date"], more)
    return element("p", "; ".join(str(one) for one in parts if one))


def _hardware(receipt: Receipt) -> str:
    if "hardware" in receipt:
        return str(receipt["hardware"])
    machine = receipt.get("replica", {}).get("machine", {})
    counts = Counter(gpu["name"] for gpu in machine.get("gpus", []))
    gpus = ", ".join(f"{number} x {name}" for name, number in counts.items())
    return gpus or (f"{machine['cpu']}, {machine['cores']} cores" if "cpu" in machine else "not known")


def _versions(receipt: Receipt) -> str:
    versions = (
        receipt.get("versions") or receipt.get("replica", {}).get("versions") or {"vllm": receipt.get("vllm", "")}
    )
    return ", ".join(f"{name} {versions[name]}" for name in ("vllm", "torch", "dsv4-serve") if versions.get(name))


def _s(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"
