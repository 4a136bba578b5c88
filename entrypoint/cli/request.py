"""What the command line asks for, over the environment; and the plan that comes of it."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from .. import supervision_settings
from ..catalog.catalog import Catalog
from ..plan import TENSOR_PARALLEL_SIZE, Plan, Setting
from ..request import Layer, Request, agreed
from ..resolve import environment
from ..vllm_schema import argv, schema
from .this_machine import this_machine

if TYPE_CHECKING:
    from ..resolve.select import Selection


def resolved(options: argparse.Namespace, words: list[str], skip: tuple[str, ...] = ()) -> tuple[Selection, Plan]:
    """Lay the command line over the environment, look at the host where nothing is named, and resolve."""
    from ..machine import detect
    from ..resolve.resolution import resolve_request

    wanted, catalog = request(options, words), Catalog(environment.folders())
    wanted = dataclasses.replace(wanted, skip=(*wanted.skip, *skip))
    resolved = resolve_request(catalog, wanted, lambda: detect.hardware_of(this_machine(), catalog), _check_names)
    return resolved.selection, resolved.plan


def _check_names() -> frozenset[str]:
    from ..doctor.registry import NAMES

    return NAMES


def request(options: argparse.Namespace, words: list[str]) -> Request:
    """Lay the command line over the environment; raise UserError for what neither may say."""
    asked = environment.read()
    watched, words = supervision_settings.from_command_line(words)
    flags = argv.read(words)
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
        asked,
        choices={**asked.choices, **choices},
        skip=(*asked.skip, *options.skip),
        command_line=Layer(flags, supervision=watched),
    )
