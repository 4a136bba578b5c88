"""`dsv4 bundle`: collect the files for an offline host, or for a bug report."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, UsageError
from ..terminal import printable
from . import arguments
from .output import print_message

if TYPE_CHECKING:
    from .parser import Commands

_PLAN = ("profile", "model", "hardware", "tp", "nccl", "skip", "log")


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "bundle",
        "Collect the files for an offline host, or for a bug report.",
        run,
        details="The folder holds images, checksums, the compose file and profiles; copy the weights separately."
        " The archive of --support holds versions, machine, patches, plan, doctor and the last exit, and no secrets;"
        " add the options that you give to `dsv4 serve`.",
        takes_vllm_flags=True,
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        help="create this folder; with --support this file (default: dsv4-support-DATE.tar.gz)",
    )
    parser.add_argument(
        "--support", action="store_true", help="write one archive for a bug report, in place of the folder"
    )
    parser.add_argument("--log", metavar="FILE", help="with --support, include the end of this log of `dsv4 serve`")
    parser.add_argument(
        "--kernels",
        metavar="PACK",
        action="append",
        default=[],
        help="put this kernel pack into the folder, for every start to import; repeatable",
    )
    arguments.add_images(parser)
    arguments.add_plan(parser)


def run(options: argparse.Namespace, argv: list[str]) -> int:
    """Write the folder, or the archive."""
    if options.support:
        if options.kernels:
            raise UsageError("`dsv4 bundle` takes --kernels only without --support; see `dsv4 bundle --help`.")
        return _support(options, argv)
    unused = [f"--{name}" for name in _PLAN if getattr(options, name)] + argv[:1]
    if unused:
        raise UsageError(f"`dsv4 bundle` takes {unused[0]} only with --support; see `dsv4 bundle --help`.")
    if not options.out:
        raise UsageError("`dsv4 bundle` needs --out FOLDER, or --support; see `dsv4 bundle --help`.")
    from ..containers import bundle, daemon
    from ..containers import options as replicas

    images = replicas.images(options, os.environ)
    packs = [_checked_pack(pack) for pack in options.kernels]
    bundle.bundle(daemon.connect(os.environ), images, Path(options.out), print_message, packs)
    return 0


def _checked_pack(pack: str) -> Path:
    """Return the path of a kernel pack; raise ConfigError for anything else, or a name that a start would not find."""
    from ..kernel_packs import at_start, place, source

    if not Path(pack).match(at_start.PATTERN):
        raise ConfigError(f"--kernels {pack}: a start imports files named {at_start.PATTERN}; rename it.")
    with source.opened(pack) as (file, name):
        manifest, reader = place.read_manifest(file, name)
        place.blobs_into(None, manifest, reader)
    return Path(pack)


def _support(options: argparse.Namespace, argv: list[str]) -> int:
    from .. import listen
    from ..resolve import environment
    from ..supervisor import run_folder
    from ..support import archive, parts, redact
    from .request import resolved
    from .this_machine import this_machine

    port = listen.health_address(os.environ)[1]
    out = Path(options.out or f"dsv4-support-{_now()}.tar.gz")
    sources = parts.Sources(
        plan=lambda: resolved(options, argv)[1],
        doctor=lambda: _doctor(options, argv),
        machine=this_machine,
        environment=redact.environment(os.environ),
        folder=run_folder.choose(environment.variables().DSV4_RUN_DIR, os.environ, port),
        health=f"http://127.0.0.1:{port}",
        log=Path(options.log) if options.log else None,
        key=lambda: _key(options, argv),
    )
    collected = parts.parts(sources)
    for line in archive.write(out, collected, _secrets(argv), os.environ.get("HOME", "")):
        print(printable(line))
    print(f"{out} is written. Look through it before you share it: a log can hold parts of prompts.")
    return 0


def _doctor(options: argparse.Namespace, argv: list[str]) -> Any:
    from ..catalog.catalog import Catalog
    from ..doctor import run as doctor
    from ..doctor.options import DoctorOptions
    from ..resolve import environment
    from .request import request
    from .this_machine import this_machine

    settings = DoctorOptions(os.environ, collective=False)
    return doctor.doctor(Catalog(environment.folders()), request(options, argv), this_machine(), settings).to_json()


def _key(options: argparse.Namespace, argv: list[str]) -> str:
    """Return the key of the plan; where there is no plan, that of the environment."""
    from .. import served_plan
    from ..api_key import key_in
    from ..errors import UserError
    from .request import resolved

    try:
        return served_plan.key(resolved(options, argv)[1])
    except UserError:
        with contextlib.suppress(UserError):
            return key_in(os.environ.get("API_KEY_FILE", ""), "API_KEY_FILE")
    return os.environ.get("VLLM_API_KEY", "")


def _secrets(argv: list[str]) -> set[str]:
    """Return the secrets of this environment, those in API_KEY_FILE among them, and of the arguments."""
    from ..api_key import lines_in
    from ..errors import ConfigError
    from ..support import redact
    from ..vllm_schema.argv import secrets_in

    secrets = redact.secrets_in(os.environ) | secrets_in(argv)
    if path := os.environ.get("API_KEY_FILE"):
        with contextlib.suppress(ConfigError):  # the doctor's part says so
            secrets |= {line.key for line in lines_in(path, "API_KEY_FILE")}
    return secrets


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).strftime("%Y-%m-%dT%H%MZ")
