"""A secret among our own arguments leaves `ps`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = (
    "import sys; from dsv4_serve.entrypoint import own_arguments as o;"
    "print(o.hide([sys.argv[2], 'schlüssel']), open('/proc/self/cmdline', 'rb').read(), sys.argv[2])"
)


def test_secrets_are_overwritten_and_still_known_to_the_program() -> None:
    argv = [sys.executable, "-c", CODE, "--api-key", "s3cret", "--x=schlüssel"]
    out = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout
    done, rest = out.split(" ", 1)
    shown, known = rest.rsplit(" ", 1)
    assert done == "True"
    assert known == "s3cret\n"
    assert "s3cret" not in shown
    assert "--api-key\\x00******\\x00--x=**********\\x00" in shown
