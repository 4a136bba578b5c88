"""The Hub's cache is where huggingface_hub looks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.weights import hub_cache


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"XDG_CACHE_HOME": "/xdg"},
        {"HF_HOME": "/home/hf"},
        {"HF_HOME": "~/hf"},
        {"HF_HOME": "$HOME/hf"},
        {"HUGGINGFACE_HUB_CACHE": "/old"},
        {"HF_HOME": "/home/hf", "HF_HUB_CACHE": "/new", "HUGGINGFACE_HUB_CACHE": "/old"},
        {"HF_HUB_CACHE": ""},
    ],
)
def test_the_folder_is_that_of_huggingface_hub(environ: dict[str, str]) -> None:
    code = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    env = {"PATH": os.environ["PATH"], "HOME": str(Path.home()), **environ}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert str(hub_cache.folder(environ)) == os.path.normpath(run.stdout.strip() or ".")
