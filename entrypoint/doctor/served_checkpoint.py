"""The checkpoint that a plan serves, where it is on this disk and whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..checkpoint import read
from ..checkpoint.read import Checkpoint
from ..plan import Plan


def read_served(plan: Plan, environ: Mapping[str, str]) -> tuple[Checkpoint | None, str]:
    """
    Return the checkpoint that the plan loads, or None and the reason why it cannot be checked.

    It is the folder that was named, else the snapshot in the Hub's cache, if whole.
    """
    named = str(plan.flags["model"].value)
    if Path(named).is_dir() or named.startswith(("/", "./", "../")):
        return _read(Path(named)), ""
    absent = f"{named} is not in the Hub's cache, and vLLM fetches it"
    if not _is_cached(named, plan, environ):
        return None, absent
    from ..weights.hub import Place, cached

    folder = cached(named, Place(cache=_download_folder(plan), revision=plan.value("revision") or None))
    if folder is None:
        return None, absent
    checkpoint = _read(folder)
    if not checkpoint.shards or checkpoint.listed - checkpoint.shards.keys():
        return None, f"{named} is not complete in the Hub's cache, and vLLM fetches the rest"
    return checkpoint, ""


def _read(folder: Path) -> Checkpoint:
    """Read a folder of weights; one that cannot be listed holds nothing."""
    try:
        return read.read(folder)
    except OSError:
        nothing = read.Document({}, absent=True)
        return Checkpoint(folder, frozenset(), nothing, nothing, {})


def _is_cached(repository: str, plan: Plan, environ: Mapping[str, str]) -> bool:
    """Tell whether the Hub's cache has a folder for a repository, before huggingface_hub is imported (0.2 s)."""
    base = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    home = Path(environ.get("HF_HOME") or base / "huggingface")
    cache = _download_folder(plan) or Path(environ.get("HF_HUB_CACHE") or home / "hub")
    return (cache / f"models--{repository.replace('/', '--')}").is_dir()


def _download_folder(plan: Plan) -> Path | None:
    named = plan.value("download-dir")
    return Path(named) if named else None
