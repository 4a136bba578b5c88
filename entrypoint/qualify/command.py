"""Run `dsv4 qualify`: the stages, the result file and its page."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import results, shared_result
from ..errors import HostError
from ..report import page
from ..resolve.select import Selection
from ..supervisor import kernel_cache, provenance
from . import checkpoint, kept, run, small
from . import share as shares
from .box import CPU, Box
from .report import QualifyReport

_FOLDER = "qualify"


def qualify(box: Box, minutes: float, stages: Sequence[str], out: Path) -> QualifyReport:
    """Run the stages and return the report; raise Stopped for a signal, after which the same command goes on."""
    results.check_writable(out, _FOLDER)
    replica = described(box)
    digest = kept.digest(box.plan, replica)
    path = kept.file(box.folder, digest)
    outcomes = run.run(box, stages, path)
    report = QualifyReport(outcomes, replica, digest, minutes)
    if all(outcome.verdict != "inconclusive" for outcome in outcomes):
        kept.forget(path)
    return report


def share(report: QualifyReport, path: Path, environ: Mapping[str, str]) -> None:
    """Write what can be published; raise UserError."""
    private = [platform.node(), environ.get("USER", ""), environ.get("LOGNAME", ""), Path(environ.get("HOME", "")).name]
    shared_result.write(path, shares.shared(report.outcomes, report.replica, datetime.now(UTC).date(), private))


def constructed(selection: Selection, environ: Mapping[str, str]) -> Path:
    """Write the small checkpoint of a model and return its folder; raise ConfigError where there is none."""
    layout = checkpoint.layout_of(selection)
    return checkpoint.write(folder(environ), layout, tiny=selection.hardware.name == CPU).folder


def folder(environ: Mapping[str, str]) -> Path:
    """Return the folder that keeps checkpoints, and what an interrupted run finished."""
    path = kernel_cache.root(environ) / _FOLDER
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"cannot write {path} ({error.strerror}); set DSV4_CACHE to another folder.") from None
    return path


def described(box: Box) -> dict[str, Any]:
    """Return plan, patches, versions and machine, with the patches of the vLLM that serves the small checkpoint."""
    return {**provenance.replica(box.plan, box.machine), **small.patches(box)}


def keep(report: QualifyReport, out: Path) -> tuple[Path, Path]:
    """Write the result and its page below `out`, and return both paths; raise HostError."""
    path = results.write(out, _FOLDER, report.to_json())
    html = path.with_suffix(".html")
    try:
        html.write_text(page.page([results.read_one(path)], path, datetime.now(UTC)), encoding="utf-8")
    except OSError as error:
        raise HostError(f"cannot write {html} ({error.strerror}); choose another folder with --out.") from None
    return path, html
