"""Serve the small checkpoint as the plan would serve its artifact: `dsv4 serve`, with every flag of the plan."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...patcher.errors import PatcherError
from ...patcher.report import report
from ...patcher.series import locate, read_series
from ...patcher.tree import open_tree
from ..bench.options import ServeOptions
from ..client import local_replica
from ..client.local_replica import Started
from ..errors import NotFound
from ..vllm_schema.schema import VERSION
from . import checkpoint
from .asking import Asker, asking
from .box import Box
from .checkpoint import SmallCheckpoint

SKIPPED = ("architecture-matches",)
"""The check that a checkpoint of another size than the published one cannot pass."""
GATE = ("--gate.signs", "logprobs")
"""It walks through its tokens, which is no language."""


@dataclass(frozen=True)
class SmallReplica:
    """The small checkpoint, served."""

    checkpoint: SmallCheckpoint
    started: Started
    asker: Asker


@contextlib.contextmanager
def replica(box: Box, model: SmallCheckpoint) -> Iterator[SmallReplica]:
    """Serve the small checkpoint in the time that remains; raise UserError where it does not become ready."""
    with serving(box, served(box, model.folder, GATE)) as (started, asker):
        yield SmallReplica(model, started, asker)


@contextlib.contextmanager
def serving(box: Box, options: ServeOptions) -> Iterator[tuple[Started, Asker]]:
    """Run `dsv4 serve` in the time that remains; raise UserError where it does not become ready."""
    seconds, folder = max(box.remaining, 1.0), local_replica.scratch()
    with (
        local_replica.replica(options.argv(), environment(box), folder, seconds) as started,
        asking(started.endpoint) as asker,
    ):
        yield started, asker


def served(box: Box, folder: Path, flags: Sequence[str]) -> ServeOptions:
    """Return how a checkpoint is served: as the plan is, but from this folder."""
    choices = {**box.serve.choices, "model": f"{box.selection.model.name}={folder}"}
    skip = (*box.serve.skip, *SKIPPED)
    return replace(box.serve, choices=choices, skip=skip, flags=(*box.serve.flags, *flags))


def without(flags: Sequence[str], name: str) -> tuple[str, ...]:
    """Return flags without one of them, `--name VALUE` or `--name=VALUE`."""
    kept, rest = list[str](), list(flags)
    while rest:
        word = rest.pop(0)
        if word == f"--{name}":
            rest = rest[1:]
        elif not word.startswith(f"--{name}="):
            kept.append(word)
    return tuple(kept)


def environment(box: Box) -> Mapping[str, str]:
    """Return the variables of the replica: these, with a patched vLLM first on the path where a CPU needs one."""
    tree = _own_tree(box)
    if tree is None:
        return box.environ
    return {**box.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(tree), box.environ.get("PYTHONPATH")]))}


def patches(box: Box) -> dict[str, Any]:
    """Return `{"patches"}` of that vLLM; nothing where the installed one serves."""
    tree = _own_tree(box)
    return {"patches": report(open_tree(tree), read_series(locate(f"{VERSION}-cpu")))} if tree else {}


def _own_tree(box: Box) -> Path | None:
    """Return a copy of the installed vLLM with the CPU series, as `make demo` makes; None where it is not needed."""
    if not box.on_cpu or _cpu_series_is_applied():
        return None
    from ...demo.errors import DemoError
    from ...demo.patched import patched_vllm

    try:
        return patched_vllm(box.folder)
    except DemoError as error:
        raise NotFound(f"{error}.") from None


def _cpu_series_is_applied() -> bool:
    try:
        applied = report(open_tree(None), read_series(locate(f"{VERSION}-cpu")))["patches"]
    except PatcherError:
        return False
    return all(patch["state"] == "applied" for patch in applied)


def write(box: Box) -> SmallCheckpoint:
    """Write the small checkpoint of a plan; raise UserError where there is none of its layout."""
    layout = checkpoint.layout_of(box.selection)
    box.folder.mkdir(parents=True, exist_ok=True)
    return checkpoint.write(box.folder, layout, tiny=box.on_cpu)
