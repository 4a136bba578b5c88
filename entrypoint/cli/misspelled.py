"""Find options of `dsv4` among flags of vLLM: misspelt ones, and those that stand after `--`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import UsageError, closest
from ..vllm_schema import schema

if TYPE_CHECKING:
    from .parser import Parser


_OF_PROFILES = {"gpus": "split the model with --tp", "nodes": "use --nnodes"}


def refuse(command: Parser, argv: Sequence[str]) -> None:
    """Raise UsageError for a flag that vLLM does not have and that is, or resembles, an option of this command."""
    flags = schema.facts()["flags"]
    known = {*flags, *(alias.lstrip("-") for flag in flags.values() for alias in flag.get("aliases", ()))}
    options = [option[2:] for option in command.options()]
    for argument in argv:
        name = argument.partition("=")[0][2:]
        if not argument.startswith("--") or "." in name or name.replace("_", "-").removeprefix("no-") in known:
            continue
        if name in _OF_PROFILES and name not in options:
            raise UsageError(f"--{name} is an option of `dsv4 profiles`; here, {_OF_PROFILES[name]}.")
        if name in options:  # argparse takes every other one
            raise UsageError(f"--{name} is an option of `{command.prog}`, not of vLLM; write it before `--`.")
        meant = closest(name, [*options, "version", *flags])
        if meant == "version":
            raise UsageError(f"`{command.prog}` does not take {argument!r}; `dsv4 --version` prints the version.")
        if meant in options:
            command.refuse(argument)
