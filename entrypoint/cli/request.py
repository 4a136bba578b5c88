"""Lay the command line over the environment to make a request, and resolve it to a plan."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from .. import supervision_settings
from ..catalog.catalog import Catalog
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
    resolved = resolve_request(catalog, requested, lambda: detect.hardware_of(this_machine(), catalog), _check_names)
    return resolved.selection, resolved.plan


def _check_names() -> frozenset[str]:
    from ..doctor.registry import NAMES

    return NAMES


def request(options: argparse.Namespace, argv: list[str]) -> Request:
    """Lay the command line over the environment; raise UserError for what neither may hold."""
    base = environment.read()
    supervision, argv = supervision_settings.from_command_line(argv)
    flags, problems = vllm_argv.read_all(argv)
    choices = {
        name: Setting(getattr(options, name), f"command line --{name}")
        for name in ("profile", "model", "hardware", "nccl")
        if getattr(options, name) is not None
    }
    if "model" in flags:
        choices["model"] = agreed("model", choices.get("model"), flags.pop("model"))
    if options.tp is not None:
        origin = "command line --tp"
        size = Setting(schema.check_value(TENSOR_PARALLEL_SIZE, options.tp, origin), origin)
        flags[TENSOR_PARALLEL_SIZE] = agreed(TENSOR_PARALLEL_SIZE, flags.get(TENSOR_PARALLEL_SIZE), size)
    return dataclasses.replace(
        base,
        choices={**base.choices, **choices},
        skip=(*base.skip, *options.skip),
        command_line=Layer(flags, supervision=supervision),
        problems=tuple(problems),
        online=getattr(options, "online", False) and not getattr(options, "dry_run", False),
        here=getattr(options, "here", False),
    )
