"""`dsv4 kernels`: carry compiled kernels from a warmed host to others, and look after the cache."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from . import arguments, kernels_text
from .output import answer, print_message

if TYPE_CHECKING:
    from ..plan import Plan
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command and its subcommands."""
    parser = commands.add(
        "kernels",
        "Carry compiled kernels to other hosts; list or prune them.",
        run,
        details="A pack holds what the cache of a warmed host has for one build, kind of GPU and model.",
        epilog="Exit status 1: files of the cache or of a pack are missing or changed.",
    )
    actions = parser.add_subparsers(required=True, metavar="COMMAND")
    export = _add(actions, "export", _export, "write a pack of this host's kernels for a plan")
    export.add_argument("--out", metavar="FILE", required=True, help="write the pack to FILE, which must not exist yet")
    take = _add(actions, "import", _import, "put the kernels of a pack into the cache; nothing there is overwritten")
    take.add_argument("pack", metavar="PACK", help="a file, an https:// URL, or oci://HOST/REPOSITORY:TAG@sha256:…")
    take.add_argument("--digest", metavar="D", help="the pack's own digest, sha256:…; any other is refused")
    take.add_argument(
        "--unpinned", action="store_true", help="accept a pack without a digest; a pack is code that runs here"
    )
    for one in (export, take):
        arguments.add_format(one)
        arguments.add_plan(one)
        one.takes_vllm_flags = True
        one.epilog = arguments.VLLM_FLAGS
    push = _add(actions, "push", _push, "upload a pack to a registry")
    push.add_argument("pack", metavar="FILE", help="the pack")
    push.add_argument("reference", metavar="REFERENCE", help="oci://HOST/REPOSITORY:TAG")
    arguments.add_format(_add(actions, "list", _list, "show the kernels of every build, kind of GPU and model"))
    verify = _add(actions, "verify", _verify, "hash the files of a pack, or without one all that were imported")
    verify.add_argument("pack", metavar="FILE", nargs="?", help="a pack (default: the cache)")
    arguments.add_format(verify)
    prune = _add(actions, "prune", _prune, "show the kernels of builds other than the installed one, or remove them")
    prune.add_argument("--yes", action="store_true", help="remove them")
    prune.add_argument(
        "--older-than",
        type=arguments.days,
        metavar="DAYS",
        help="only folders not written to for DAYS days (default: all)",
    )
    arguments.add_format(prune)


def _add(actions: Any, name: str, perform: Any, text: str) -> Any:
    parser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(perform=perform)
    return parser


def run(options: argparse.Namespace, argv: list[str]) -> int:
    """Run the subcommand."""
    from . import log

    log.to_stderr()
    status: int = options.perform(options, argv)
    return status


def _export(options: argparse.Namespace, argv: list[str]) -> int:
    from ..kernel_packs import export
    from ..supervisor import provenance
    from .this_machine import this_machine

    plan, folder = _plan(options, argv)
    manifest = export.describe(folder, provenance.replica(plan, this_machine()))
    out = Path(options.out)
    digest = f"sha256:{export.write(manifest, folder, out)}"
    size = out.stat().st_size
    return answer(
        options,
        lambda: {"pack": str(out), "digest": digest, "bytes": size, "key": str(manifest.key)},
        lambda: kernels_text.exported(manifest, str(out), digest, size),
    )


def _import(options: argparse.Namespace, argv: list[str]) -> int:
    from ..kernel_packs import place, source, state
    from ..supervisor import kernel_cache
    from .this_machine import this_machine

    source.check_pin(options.pack, options.digest, unpinned=options.unpinned)
    plan, folder = _plan(options, argv)
    before = kernel_cache.find(plan, folder)
    with source.opened(options.pack, options.digest) as (file, name):
        placed = place.place(file, name, kernel_cache.root(os.environ), folder)
    families = state.families(placed, this_machine().driver.version or "")
    line = state.plan_line(placed, before.note.stem, before.filled)
    return answer(
        options,
        lambda: {"folder": str(folder), "plan": line, "families": [one.to_json() for one in families]},
        lambda: kernels_text.imported(placed, families, line),
    )


def _push(options: argparse.Namespace, _argv: list[str]) -> int:
    from ..kernel_packs import place, registry, source

    reference = registry.parse(options.reference)
    with source.opened(options.pack) as (file, name):
        manifest, _ = place.read_manifest(file, name)
    annotations = {"org.opencontainers.image.title": Path(options.pack).name, "dsv4.kernels.key": str(manifest.key)}
    digest = registry.push(reference, Path(options.pack), annotations)
    print(f"{reference}@{digest}")
    return 0


def _list(options: argparse.Namespace, _argv: list[str]) -> int:
    from ..kernel_packs import cached

    root, build = _cache()
    found = cached.listed(root, build)
    return answer(
        options, lambda: [one.to_json() for one in found], lambda: kernels_text.listed(found, str(root), build)
    )


def _verify(options: argparse.Namespace, _argv: list[str]) -> int:
    from ..kernel_packs import cached, place, source

    if options.pack:
        with source.opened(options.pack) as (file, name):
            manifest, reader = place.read_manifest(file, name)
            place.blobs_into(None, manifest, reader)
        files = len(manifest.files)
        text = f"{name}: {files} files for {manifest.key}, all hashes match."
        return answer(options, lambda: {"key": str(manifest.key), "files": files}, lambda: text)
    root, _ = _cache()
    result = cached.verify(root)
    answer(
        options,
        lambda: {"checked": result.checked, "missing": result.missing, "changed": result.changed},
        lambda: kernels_text.verified(result, str(root)),
    )
    return 0 if result.whole else 1


def _prune(options: argparse.Namespace, _argv: list[str]) -> int:
    from ..kernel_packs import cached

    root, build = _cache()
    if build.startswith("unknown-"):
        raise UsageError("No vLLM is installed here, so every build would be another; prune where it is.")
    found = cached.prunable(root, build, options.older_than or 0.0)
    if options.yes:
        cached.remove(found)
    answer(options, lambda: [one.to_json() for one in found], lambda: kernels_text.pruned(found, removed=options.yes))
    if found and not options.yes:
        print_message("nothing was removed; `dsv4 kernels prune --yes` removes these folders")
    return 0


def _plan(options: argparse.Namespace, argv: list[str]) -> tuple[Plan, Path]:
    """Return a plan and the cache folder of its kernels."""
    from ..supervisor import kernel_cache
    from .request import resolved

    _, plan = resolved(options, argv)
    return plan, kernel_cache.installed_folder(plan, os.environ)


def _cache() -> tuple[Path, str]:
    """Return the cache's root, and the installed build."""
    from ..supervisor import kernel_cache, provenance

    return kernel_cache.root(os.environ), kernel_cache.build(provenance.versions(), provenance.patches())
