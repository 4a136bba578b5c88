"""`dsv4 profiles`: list what can be served by name, and what of it fits some GPUs."""

from __future__ import annotations

import argparse
import dataclasses
import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..plan import Setting
from ..text_table import table
from . import arguments
from .output import answer
from .this_machine import this_machine

if TYPE_CHECKING:
    from ..catalog.catalog import Catalog
    from ..machine.gpus import HostGpus
    from ..request import Request
    from .parser import Commands

WIDTH = 80


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add("profiles", "List the profiles and what was measured, or those that fit.", run)
    group = parser.add_argument_group("what fits")
    group.add_argument("--here", action="store_true", help="list what fits the GPUs of this host")
    group.add_argument("--hardware", metavar="H", help="list what fits GPUs of this kind, where no GPU is at hand")
    group.add_argument(
        "--gpus",
        metavar="N",
        type=arguments.count,
        help="count N GPUs (default: this host's, or 2 of a named kind, or 1 a host of several GB10)",
    )
    group.add_argument("--nodes", metavar="N", type=arguments.count, help="count N hosts of such GPUs (default: 1)")
    group.add_argument(
        "--model", metavar="M", help="list this model only: its name, Hub repository or folder (default: all)"
    )
    arguments.add_format(parser)


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Print the profiles, or what fits."""
    from ..catalog import listing
    from ..catalog.catalog import Catalog
    from ..resolve import environment

    catalog = Catalog(environment.folders())
    if options.here or options.hardware:
        return _run_what_fits(options, catalog)
    if options.gpus or options.nodes or options.model:
        raise UsageError("--gpus, --nodes and --model need --here or --hardware: the list without them is for any GPU.")
    entries = listing.listing(catalog)
    return answer(options, lambda: entries, lambda: text(entries))


def _run_what_fits(options: argparse.Namespace, catalog: Catalog) -> int:
    from ..resolve.what_fits import what_fits
    from .what_fits_text import text as shown

    found = what_fits(catalog, _request(options), _gpus(options, catalog))
    return answer(options, found.to_json, lambda: shown(found, named=bool(options.hardware)))


def _request(options: argparse.Namespace) -> Request:
    """Return the environment's request without the profile, hardware and size that are compared here."""
    from ..plan import TENSOR_PARALLEL_SIZE
    from ..resolve import environment

    base = environment.read()
    choices = {name: setting for name, setting in base.choices.items() if name not in ("profile", "hardware")}
    if options.model:
        choices["model"] = Setting(options.model, "command line --model")
    flags = {name: setting for name, setting in base.environment.flags.items() if name != TENSOR_PARALLEL_SIZE}
    if options.nodes:
        flags["nnodes"] = Setting(options.nodes, "command line --nodes")
    return dataclasses.replace(base, choices=choices, environment=dataclasses.replace(base.environment, flags=flags))


def _gpus(options: argparse.Namespace, catalog: Catalog) -> HostGpus:
    from ..machine import detect
    from ..machine.gpus import HostGpus

    if options.hardware:
        origin = "command line --hardware"
        each = catalog.hardware(options.hardware, origin).get("gpus_per_host") if (options.nodes or 1) > 1 else 0
        return HostGpus(options.hardware, origin, options.gpus or each or 2)
    here = detect.hardware_of(this_machine(), catalog)
    return dataclasses.replace(here, count=options.gpus or here.count)


def text(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return one row for each profile, followed by its models and its measured figures, in 80 columns."""
    lines: list[tuple[str, ...]] = [("profile", "context x requests", "TP", "hardware")]
    notes: dict[int, list[str]] = {}
    for entry in entries:
        lines.append(
            (
                entry["name"],
                f"{entry['context']} x {entry['requests']}",
                ",".join(map(str, entry["tensor-parallel-sizes"])) or "any",
                " ".join(entry["hardware"]) or "any",
            )
        )
        figures = [figure(m) for m in entry["measured"]] + [given(one) for one in entry["community"]] or ["unmeasured"]
        notes[len(lines) - 1] = [f"models: {', '.join(entry['models']) or 'any'}", *figures]
    out = []
    for number, line in enumerate(table(lines).splitlines()):
        out += [line, *(_wrapped(part) for note in notes.get(number, []) for part in note.splitlines())]
    return "\n".join(out)


def figure(measured: Mapping[str, Any]) -> str:
    """Return a figure and its conditions, on two lines."""
    return "{what}\n  {hardware}, {model}, vLLM {vllm}, {date}; {source}".format(**measured)


def given(one: Mapping[str, Any]) -> str:
    """Return a result that somebody else gave, with its name and conditions, on two lines."""
    from ..catalog import community

    return f"{community.credit(one)}: {community.figures(one)}\n  {community.conditions(one)}"


def _wrapped(part: str) -> str:
    indent = "    " + part[: len(part) - len(part.lstrip())]
    return wrapped(part.strip(), indent, indent)


def wrapped(text: str, first: str, rest: str) -> str:
    """Wrap a text for a terminal; a path or an address stays whole."""
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
