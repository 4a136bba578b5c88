"""Read the checkpoint that a plan serves, if it is on this disk and complete."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..catalog.catalog import ProfileFile
from ..catalog.schema import Model
from ..checkpoint import read
from ..checkpoint.read import Checkpoint
from ..plan import Plan
from ..weights import hub_cache


def read_served(plan: Plan, model: ProfileFile[Model], environ: Mapping[str, str]) -> tuple[Checkpoint | None, str]:
    """
    Return the checkpoint that the plan loads, or None and the reason why it cannot be checked, with what is downloaded.

    It is the folder that was named, else the snapshot in the Hub's cache, if whole.
    """
    named = str(plan.flags["model"].value)
    if Path(named).is_dir() or named.startswith(("/", "./", "../")):
        return _read(Path(named)), ""
    download = plan.value("download-dir")
    cache = Path(download) if download else hub_cache.folder(environ)
    folder = None
    try:
        if hub_cache.repository_folder(cache, named).is_dir():
            from ..weights.hub import Place, cached

            folder = cached(named, Place(cache=cache, revision=plan.value("revision") or None))
    except OSError as error:
        return None, f"the Hub's cache, {cache}, cannot be read ({error.strerror})"
    if folder is None:
        return None, f"{named} is not in the Hub's cache; `dsv4 serve` fetches it{_advice(model)}"
    checkpoint = _read(folder)
    if not checkpoint.shards or checkpoint.listed - checkpoint.shards.keys():
        return None, f"{named} is incomplete in the Hub's cache; `dsv4 serve` fetches the rest{_advice(model)}"
    return checkpoint, ""


def _advice(model: ProfileFile[Model]) -> str:
    """Return how much GPU memory the weights take, and how to do without a download."""
    gib = model.get("weights_gib")
    size = f" (about {gib:.0f} GiB on the GPUs)" if gib else ""
    return f"{size}; to serve a folder instead, set --model {model.name}=FOLDER (MODEL)"


def _read(folder: Path) -> Checkpoint:
    """Read a folder of weights; one that cannot be listed holds nothing."""
    try:
        return read.read(folder)
    except OSError as error:
        nothing = read.Document({}, absent=True)
        return Checkpoint(folder, frozenset(), nothing, nothing, {}, unreadable=error.strerror or str(error))
