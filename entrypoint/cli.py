"""The command `dsv4`: the only module here that prints and exits."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from dsv4_serve.entrypoint import render
from dsv4_serve.entrypoint.errors import NotFound, UsageError, UserError, nearest
from dsv4_serve.entrypoint.plan import Plan, Setting

COMMANDS = ("serve", "explain", "profiles", "patch", "probe")
_TP = "tensor-parallel-size"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status; a user's mistake becomes one sentence on stderr."""
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"dsv4: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # as a shell reports SIGPIPE


def _dispatch(words: list[str]) -> int:
    """A leading flag means `serve`; a first word that is none of our commands is run as it stands."""
    if not words or words[0] in ("-h", "--help"):
        _parser().print_help()
        return 0
    if words[0] == "--version":
        print(f"dsv4-serve {_version()}")
        return 0
    if words[0].startswith("-"):
        words.insert(0, "serve")
    if words[0] == "probe":
        from dsv4_serve.healthcheck.probe import probe

        status, text = probe(words[1:])
        print(text, file=sys.stderr if status else sys.stdout)
        return status
    if words[0] == "patch":
        from dsv4_serve.patcher.cli import main as patch

        return patch(words[1:])
    if words[0] not in COMMANDS:
        return _run_other(words)
    cut = words.index("--") if "--" in words else len(words)
    options, flags = _parser().parse_known_args(words[:cut])
    flags += words[cut + 1 :]
    if words[0] == "profiles":
        return _profiles(options, flags)
    return _explain(options, _plan(options, flags)) if words[0] == "explain" else _serve(options, flags)


def _run_other(words: list[str]) -> int:
    from dsv4_serve.entrypoint import launch

    try:
        return launch.run(words, os.environ)
    except NotFound as error:
        raise NotFound(f"{error} Commands of dsv4: {', '.join(COMMANDS)}{nearest(words[0], COMMANDS)}") from None


def _plan(options: argparse.Namespace, words: list[str]) -> Plan:
    """Lay the command line over the environment, look at the host where nothing is named, and resolve."""
    from dsv4_serve.entrypoint import environment, known, nvml, supervision, vllm_arguments
    from dsv4_serve.entrypoint.choose import choose
    from dsv4_serve.entrypoint.request import Layer, agreed
    from dsv4_serve.entrypoint.resolve import resolve
    from dsv4_serve.entrypoint.sheets import Library

    request = environment.read()
    watched, words = supervision.from_command_line(words)
    flags = vllm_arguments.read(words)
    choices = {
        name: Setting(getattr(options, name), f"command line --{name}")
        for name in ("profile", "model", "hardware", "nccl")
        if getattr(options, name) is not None
    }
    if "model" in flags:
        choices["model"] = agreed("model", choices.get("model"), flags.pop("model"))
    if options.tp is not None:
        origin = "command line --tp"
        flags[_TP] = agreed(_TP, flags.get(_TP), Setting(known.check_value(_TP, options.tp, origin), origin))
    request = dataclasses.replace(
        request,
        choices={**request.choices, **choices},
        skip=(*request.skip, *options.skip),
        command_line=Layer(flags, supervision=watched),
    )
    library = Library(environment.folders())
    return resolve(choose(library, request, lambda: nvml.find(library, os.environ)), request)


def _serve(options: argparse.Namespace, words: list[str]) -> int:
    """Show the plan, and unless this is a dry run own vLLM until it ends."""
    if options.dry_run:
        _show(_plan(options, words))
        return 0
    from dsv4_serve.entrypoint import about, environment, launch, record, supervise

    variables = environment.variables()
    return supervise.run(
        supervise.Surroundings(
            environ={**os.environ, "DSV4_VLLM": launch.vllm_program(os.environ)},
            health_host=variables.DSV4_HEALTH_HOST,
            health_port=variables.DSV4_HEALTH_PORT,
            run_folder=variables.DSV4_RUN_DIR or record.default_folder(variables.DSV4_HEALTH_PORT),
            termination_log=variables.DSV4_TERMINATION_LOG,
            prepare=lambda: _plan(options, words),
            describe=about.replica,
            show=_show,
            say=lambda text: print(f"dsv4: {text}", file=sys.stderr, flush=True),
            interactive=sys.stderr.isatty(),
        )
    )


def _show(plan: Plan) -> None:
    for name, setting in plan.choices.items():
        print(f"# {render.setting_line(name, setting)}")
    print(plan.command(), flush=True)


def _explain(options: argparse.Namespace, plan: Plan) -> int:
    print(json.dumps(plan.to_json(), indent=2) if options.format == "json" else render.plan(plan))
    return 0


def _profiles(options: argparse.Namespace, words: list[str]) -> int:
    from dsv4_serve.entrypoint import environment, products
    from dsv4_serve.entrypoint.sheets import Library

    if words:
        raise UsageError(f"`dsv4 profiles` takes no {words[0]!r}; see `dsv4 profiles --help`.")
    entries = products.listing(Library(environment.folders()))
    print(json.dumps(entries, indent=2) if options.format == "json" else render.profiles(entries))
    return 0


def _version() -> str:
    from importlib.metadata import version

    return version("dsv4-serve")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dsv4",
        description="Serve DeepSeek-V4 with its MTP draft head, by the name of a profile.",
        epilog="A leading flag means `serve`. Any other first word is run as a command.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serve = commands.add_parser("serve", help="resolve a plan, print it, and start vLLM", allow_abbrev=False)
    serve.add_argument("--dry-run", action="store_true", help="print the command and stop")
    explain = commands.add_parser("explain", help="every setting, and where it came from", allow_abbrev=False)
    listing = commands.add_parser("profiles", help="the profiles, and what was measured", allow_abbrev=False)
    commands.add_parser("patch", help="the patch series: status, apply, verify", add_help=False)
    commands.add_parser("probe", help="ask a running replica: startup, live or ready", add_help=False)
    for command in (serve, explain):
        command.epilog = "Every other flag is vLLM's own, before or after `--`."
        command.add_argument("--profile", metavar="P", help="a way to serve, from `dsv4 profiles` (PROFILE)")
        command.add_argument("--model", metavar="M", help="a model, its repository, a folder, or NAME=FOLDER (MODEL)")
        command.add_argument("--hardware", metavar="H", help="the kind of GPU; read through NVML if absent (HARDWARE)")
        command.add_argument("--tp", metavar="N", help="tensor parallel size, in GPUs (TP)")
        command.add_argument("--nccl", metavar="SET", help="a set of NCCL variables, or `none` (DSV4_NCCL)")
        command.add_argument("--skip", metavar="NAME", action="append", default=[], help="override one refusal by name")
    for command in (explain, listing):
        command.add_argument("--format", choices=("text", "json"), default="text")
    return parser
