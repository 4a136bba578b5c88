"""Each patch is tried on vLLM's own code twice: a patched copy of the installed package, and the package as it is."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from dsv4_serve.demo.patched import cpu_wheel, patched_tree
from dsv4_serve.entrypoint.vllm_schema.schema import VERSION
from tests.support.program import environment

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    here = [item for item in items if item.path.parent == HERE]
    for item in here:
        item.add_marker(pytest.mark.slow)
        if find_spec("vllm") is None:
            item.add_marker(pytest.mark.skip(reason="vLLM is not installed beside this interpreter"))


@pytest.fixture(scope="session")
def outcomes(request, tmp_path_factory):
    """{"patched" or "stock": {check: error or None}} of all collected files."""
    files = sorted({item.path for item in request.session.items if item.path.parent == HERE})
    folder = tmp_path_factory.mktemp("patches")
    trees = {"patched": patched_tree(folder / "patched", VERSION), "stock": cpu_wheel(folder / "stock")}
    with ThreadPoolExecutor() as both:
        found = {name: both.submit(run_checks, files, folder / f"{name}.json", tree) for name, tree in trees.items()}
        return {name: one.result() for name, one in found.items()}


@pytest.fixture
def holds(request, outcomes):
    """Assert that a check of the calling file passes with the series applied."""

    def ask(check):
        assert outcomes["patched"][f"{request.path.stem}::{check}"] is None

    return ask


@pytest.fixture
def needs_patch(request, outcomes, holds):
    """Assert that a check passes with the series and fails without it, for the reason given."""

    def ask(check, without):
        holds(check)
        assert without in str(outcomes["stock"][f"{request.path.stem}::{check}"])

    return ask


def run_checks(files, result, first):
    settings = environment(first) | {"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.patches.run_checks", result, *files]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=900, check=False)
    assert result.exists(), done.stderr[-4000:]
    return json.loads(result.read_text())
