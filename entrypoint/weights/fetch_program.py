"""
Fetch one repository into the Hub's cache: `python -m …weights.fetch_program REPOSITORY REVISION CACHE`.

A process of its own, which a stop can end at any time: the partial files are kept. It reports on standard output, one
JSON object per line: bytes `here`, `size` and bytes `read` again while it fetches, `waits` while another process does,
`note` for a line in the log, `offline` where the Hub cannot be reached, and `failed` with an exit `status`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from . import hub
from .download import FetchedElsewhere, HubUnreachable

AGAIN = 10.0  # seconds between two attempts while another process fetches the same files


def main(arguments: Sequence[str]) -> int:
    """Fetch, and report; return the exit status."""
    repository, revision, cache = arguments
    logging.disable()
    try:
        _fetch(repository, hub.Place(cache=Path(cache) if cache else None, revision=revision or None))
    except UserError as error:
        tell(failed=str(error), status=int(error.exit_status))
        return int(error.exit_status)
    return 0


def _fetch(repository: str, place: hub.Place) -> None:
    """Return once the weights are complete, or may be: without the Hub, only what lies beside them can tell."""
    while True:
        try:
            folder = hub.fetch(repository, place, report=lambda here, size, read: tell(here=here, size=size, read=read))
            tell(note=f"the weights of {repository} are complete in {folder}")
            return
        except FetchedElsewhere as error:
            tell(waits=str(error))
            time.sleep(AGAIN)
        except HubUnreachable as error:
            status = hub.local_status(repository, place)
            if status.folder is None or status.missing:
                raise
            note = (
                f"{str(error).partition(';')[0]}. {repository} is served from {status.folder}, with HF_HUB_OFFLINE=1."
            )
            tell(note=note, offline=True)
            return


def tell(**what: Any) -> None:
    """Report to the parent."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
