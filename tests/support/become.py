"""Be a program in a fork of a process that has imported it, to its end."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn


def become(
    main: Callable[[], object], argv: Sequence[str], environ: Mapping[str, str], folder: str, outputs: Sequence[int]
) -> NoReturn:
    """Run `main` with this environment and no other, and files for stdout and stderr; then end, with its status."""
    status = 1
    try:
        for number, file in enumerate(outputs, 1):
            os.dup2(file, number)
            os.close(file)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environ)
        sys.argv = [*argv]
        status = _status(main())
    except SystemExit as end:
        status = _status(end.code)
    except BaseException:  # what the interpreter would do
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # the rest of an interpreter's end takes ten milliseconds and changes nothing


def _status(code: object) -> int:
    if code is None or isinstance(code, int):
        return code or 0
    sys.stderr.write(f"{code}\n")
    return 1
