"""What the command line asks for, over the environment; and the plan that comes of it."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
from typing import TYPE_CHECKING

from .. import supervision_settings
from ..catalog.catalog import Catalog
from ..plan import Plan, Setting
from ..request import Layer, Request, agreed
from ..resolve import environment
from ..vllm_schema import argv, schema

if TYPE_CHECKING:
    from ..resolve.select import Selection

_TP = "tensor-parallel-size"


def resolved(options: argparse.Namespace, words: list[str], skip: tuple[str, ...] = ()) -> tuple[Selection, Plan]:
    """Lay the command line over the environment, look at the host where nothing is named, and resolve."""
    from ..machine import detect
    from ..resolve import auto
    from ..resolve.layers import resolve
    from ..resolve.select import select

    asked, catalog = request(options, words), Catalog(environment.folders())
    asked = dataclasses.replace(asked, skip=(*asked.skip, *skip))

    find = functools.cache(lambda: detect.find(catalog, os.environ))
    asked = auto.settle(catalog, asked, find)
    selection = select(catalog, asked, find)
    return selection, resolve(selection, asked)


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
        flags[_TP] = agreed(_TP, flags.get(_TP), Setting(schema.check_value(_TP, options.tp, origin), origin))
    return dataclasses.replace(
        asked,
        choices={**asked.choices, **choices},
        skip=(*asked.skip, *options.skip),
        command_line=Layer(flags, supervision=watched),
    )
