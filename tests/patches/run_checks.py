"""
Run every `check_*` function of the named test files in this process and write {"file::check": error or null} as JSON.

    python run_checks.py RESULT.json test_a.py test_b.py

The vLLM that it meets is the first on the path: patched or not.
"""

import gc
import importlib.util
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path


def outcome(check):
    try:
        check()
    except Exception as error:  # any failure of a check is its result
        traceback.print_exc()
        return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])  # hypothesis' example
    return None


def main(result, files):
    found = {}
    for file in map(Path, files):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, check in vars(module).items():
            if name.startswith("check_"):
                found[f"{file.stem}::{name}"] = outcome(check)
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    gc.disable()  # importing vLLM makes objects that stay
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder  # checkpoints that the checks write go with this process
        main(sys.argv[1], sys.argv[2:])
    sys.stderr.flush()
    os._exit(0)  # taking vLLM's modules apart takes seconds
