"""Report why a replica ended: in the log, the termination message and last-exit.json."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from pathlib import Path

from ...healthcheck.state import LastExit
from ..vllm_log.exit_cause import ExitReason
from . import atomic_file, crash_loop, run_folder, state_file
from .context import ServeContext
from .crash_loop import StartRecord

log = logging.getLogger(__name__)
TERMINATION_MESSAGE = 4096  # characters that Kubernetes reads


def publish(reason: ExitReason, context: ServeContext) -> None:
    """Log the reason unless that is done, and write it to both files."""
    text = f"{reason.cause.name} (exit status {reason.cause.exit_status:d}): {reason.sentence}"
    if reason.root:
        text += f"\nroot cause: {reason.root}"
    if not reason.logged:
        cause = {"cause": reason.cause.name, "exit_status": int(reason.cause.exit_status), "root_cause": reason.root}
        log.log(logging.ERROR if reason.failed else logging.INFO, text, extra={"fields": cause})
    if reason.failed and context.termination_log.exists():  # Kubernetes makes the file
        flags = os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK  # a pipe without a reader would block for ever
        with contextlib.suppress(OSError), os.fdopen(os.open(context.termination_log, flags), "wb") as file:
            file.write(text[:TERMINATION_MESSAGE].encode(errors="replace"))
    summary = {
        "cause": reason.cause.name,
        "status": reason.cause.exit_status,
        "sentence": reason.sentence,
        "root": reason.root,
        "xids": [{"number": xid.number, "gpu": xid.bus, "what": xid.fact["what"]} for xid in reason.xids],
    }
    atomic_file.write(context.run_folder / run_folder.LAST_EXIT, json.dumps(summary, indent=2))


def last(folder: Path, record: StartRecord) -> LastExit | None:
    """Return how the start before this one ended; None where none is on record."""
    if not record.starts:
        return None
    if not record.ended:
        return LastExit("unrecorded", sentence=f"{crash_loop.UNRECORDED}: it was killed, or the power failed.")
    stored = state_file.read(folder / run_folder.LAST_EXIT, LastExit) or LastExit("")
    return dataclasses.replace(stored if stored.cause == record.cause else LastExit(record.cause), at=record.ended)
