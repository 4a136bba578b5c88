"""The answers of `dsv4 kernels` for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import text_table

if TYPE_CHECKING:
    from ..kernel_packs.cached import CachedKernels, Prunable, VerifiedCache
    from ..kernel_packs.manifest import PackManifest
    from ..kernel_packs.place import Placed
    from ..kernel_packs.state import FamilyState

_SHOWN = 20
_OTHERS = "not installed: compiled by a vLLM of other versions or patches, such as the patched copy of `make demo`"


def exported(manifest: PackManifest, out: str, digest: str, size: int) -> str:
    """Return what was packed, and the command that imports it."""
    rows = [
        [family, str(len(files)), _mib(sum(file.size for file in files))]
        for family, files in manifest.families().items()
    ]
    plans = len(manifest.plans)
    return "\n".join(
        [
            f"kernels of {manifest.key}; {plans} plan{'s' * (plans != 1)} became ready with them",
            text_table.table([["family", "files", "MiB"], *rows]),
            f"{out}: {_mib(size)} MiB, {_mib(manifest.size)} MiB unpacked",
            f"on the other host: dsv4 kernels import {out} --digest {digest}",
        ]
    )


def imported(placed: Placed, families: Sequence[FamilyState], plan: str) -> str:
    """Return what was written, and for each family whether a start will find its kernels."""
    rows = [
        [one.family, str(one.files), str(one.written), f"miss: {one.miss}" if one.miss else "hit"] for one in families
    ]
    done = f"{len(placed.written)} files written to {placed.folder}, {len(placed.kept)} were there already"
    if placed.before:
        done = f"this pack was imported before into {placed.folder}; nothing was written"
    return "\n".join([done, text_table.table([["family", "files", "written", "next start"], *rows]), plan])


def listed(found: Sequence[CachedKernels], root: str, build: str) -> str:
    """Return one line for each build, kind of GPU and model."""
    if not found:
        return f"{root} holds no kernels."
    rows = [
        [one.key, str(one.files), _mib(one.size), str(one.plans), str(one.packs), "yes" if one.current else "no"]
        for one in found
    ]
    head = ["build/hardware/model", "files", "MiB", "plans", "packs", "installed"]
    lines = [text_table.table([head, *rows]), f"in {root}; the installed build is {build}"]
    if not all(one.current for one in found):
        lines.append(_OTHERS)
    return "\n".join(lines)


def verified(result: VerifiedCache, root: str) -> str:
    """Return whether the files of imported packs are as they were."""
    if not result.checked:
        return f"No pack was imported into {root}."
    named = [("missing", path) for path in result.missing] + [("changed", path) for path in result.changed]
    lines = [f"  {what}: {path}" for what, path in named[:_SHOWN]]
    if len(named) > _SHOWN:
        lines.append(f"  and {len(named) - _SHOWN} more")
    ending = f"{len(named)} differ:" if named else "all unchanged."
    return "\n".join([f"{root}: {result.checked} imported files, {ending}", *lines])


def pruned(found: Sequence[Prunable], *, removed: bool) -> str:
    """Return the folders of other builds."""
    if not found:
        return "nothing to prune"
    rows = [["removed" if removed else "can be removed", "MiB", "days"]]
    rows += [[str(one.folder), _mib(one.size), f"{one.days:.1f}"] for one in found]
    return text_table.table(rows)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f}"
