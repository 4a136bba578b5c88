"""Lay the command line over the environment to make a request, and resolve it to a plan."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .. import supervision_settings
from ..catalog.catalog import Catalog
from ..errors import gathered
from ..plan import TENSOR_PARALLEL_SIZE, Plan, Setting
from ..request import Layer, Request, agreed
from ..resolve import environment
from ..vllm_schema import argv as vllm_argv
from ..vllm_schema import schema
from .this_machine import this_machine

if TYPE_CHECKING:
    from ..resolve.select import Selection


def resolved(options: argparse.Namespace, argv: list[str], skip: tuple[str, ...] = ()) -> tuple[Selection, Plan]:
    """Resolve the request of the command line and the environment; read the host where no hardware is named."""
    from ..machine import detect
    from ..resolve.resolution import resolve_request

    requested, catalog = request(options, argv), Catalog(environment.folders())
    requested = dataclasses.replace(requested, skip=(*requested.skip, *skip))
    resolved = resolve_request(catalog, requested, lambda: detect.hardware_of(this_machine(), catalog), check_names)
    return resolved.selection, resolved.plan


def check_names() -> frozenset[str]:
    """Return the names of the doctor's checks."""
    from ..doctor.registry import NAMES

    return NAMES


def request(options: argparse.Namespace, argv: list[str]) -> Request:
    """Lay the command line over the environment; raise UserError for what neither may hold."""
    base = environment.read_all()
    supervision, argv, wrong = supervision_settings.from_command_line(argv)
    flags, problems = vllm_argv.read_all(argv)
    problems = [*base.problems, *wrong, *problems]
    choices = {
        name: Setting(getattr(options, name), f"command line --{name}")
        for name in ("profile", "model", "hardware", "nccl")
        if getattr(options, name) is not None
    }
    if "model" in flags:
        both = choices.get("model"), flags.pop("model")
        choices["model"] = gathered(problems, lambda: agreed("model", *both), both[1])
    if options.tp is not None and (size := gathered(problems, lambda: _size(options.tp, flags), None)):
        flags[TENSOR_PARALLEL_SIZE] = size
    return dataclasses.replace(
        base,
        choices={**base.choices, **choices},
        skip=(*base.skip, *options.skip),
        command_line=Layer(flags, supervision=supervision),
        problems=tuple(problems),
        online=getattr(options, "online", False) and not getattr(options, "dry_run", False),
        here=getattr(options, "here", False),
    )


def _size(text: str, flags: Mapping[str, Setting]) -> Setting:
    origin = "command line --tp"
    size = Setting(schema.check_value(TENSOR_PARALLEL_SIZE, text, origin), origin)
    return agreed(TENSOR_PARALLEL_SIZE, flags.get(TENSOR_PARALLEL_SIZE), size)
