"""Where the Hub's cache is, without huggingface_hub, whose import takes 0.2 s."""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from pathlib import Path

VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")
"""The variables that name it, the strongest first."""


def folder(environ: Mapping[str, str]) -> Path:
    """Return the cache's folder by the variables that huggingface_hub 2.4 reads (constants.py), in its order."""
    home = environ.get("HF_HOME", f"{environ.get('XDG_CACHE_HOME', '~/.cache')}/huggingface")
    named = environ.get("HF_HUB_CACHE", environ.get("HUGGINGFACE_HUB_CACHE", f"{home}/hub"))
    return Path(os.path.expandvars(os.path.expanduser(named)))  # noqa: PTH111 - it leaves `~` where there is no home


def repository_folder(cache: Path, repository: str) -> Path:
    """Return the folder of a repository in a cache."""
    return cache / f"models--{repository.replace('/', '--')}"
