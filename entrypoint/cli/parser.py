"""The command line of `dsv4`: its commands and options, and the request that the ones of `serve` make."""

from __future__ import annotations

import argparse
import dataclasses
from typing import NoReturn

from ..errors import UsageError
from ..plan import Setting
from ..request import Request

COMMANDS = (
    *("serve", "explain", "doctor", "fit", "profiles", "weights", "patch", "probe"),
    *("up", "down", "status", "logs", "bundle"),
    "manifests",
    *("bench", "bench compare", "warm"),
    *("smoke", "eval", "report"),
)
TAKE_FLAGS = ("serve", "explain", "doctor", "fit", "up", "bench", "warm")
"""Commands that take vLLM's own flags."""
_TP = "tensor-parallel-size"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`.")


def request(options: argparse.Namespace, words: list[str]) -> Request:
    """Lay the command line over the environment; raise UserError for what neither may say."""
    from .. import supervision_settings
    from ..request import Layer, agreed
    from ..resolve import environment
    from ..vllm_schema import argv, schema

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


def parser() -> argparse.ArgumentParser:
    """Return the parser of every command but `patch` and `probe`, which have their own."""
    from ..bench import options as benches
    from ..containers import options as replicas
    from ..evals import options as quality
    from ..kubernetes import options as kubernetes
    from ..smoke import options as smoke

    top = _Parser(
        prog="dsv4",
        description="Serve DeepSeek-V4 with its MTP draft head, by the name of a profile.",
        epilog="A leading flag means `serve`. Any other first word is run as a command.",
        allow_abbrev=False,
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, about: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=about, description=about, allow_abbrev=False)

    serve = command("serve", "resolve a plan, print it, look at the host, and start vLLM")
    serve.add_argument("--dry-run", action="store_true", help="print the command and stop")
    explain = command("explain", "every setting, and where it came from")
    doctor = command("doctor", "every problem of this host and this checkpoint, before anything is started")
    fit = command("fit", "what fits the GPUs' memory, and which flag to change; exit status 1 when it does not start")
    for one in (serve, doctor):
        one.add_argument(
            "--collective",
            action=argparse.BooleanOptionalAction,
            help="try an all-reduce between the GPUs, 20 s at most (serve tries it where they have no NVLink)",
        )
    bench, compare = command("bench", benches.BENCH), command("bench compare", benches.COMPARE)
    warm = command("warm", benches.WARM)
    benches.add_options(bench)
    benches.add_compare(compare)
    benches.add_warm(warm)
    for one in (serve, explain, doctor, fit, bench, warm):
        _add_choices(one)
    listing = command("profiles", "the profiles, and what was measured")
    weights = command("weights", "weights from the Hub: what is here, fetching with resume, verifying")
    _add_weights(weights)
    up = command("up", replicas.UP)
    _add_choices(up)
    replicas.add_up(up)
    command("down", replicas.DOWN)
    replicas.add_status(command("status", replicas.STATUS))
    replicas.add_logs(command("logs", replicas.LOGS))
    replicas.add_bundle(command("bundle", replicas.BUNDLE))
    manifests = command("manifests", kubernetes.MANIFESTS)
    _add_choices(manifests)
    kubernetes.add_manifests(manifests)
    smoke.add(command("smoke", smoke.ABOUT))
    quality.add_eval(command("eval", quality.EVAL))
    quality.add_report(command("report", quality.REPORT))
    commands.add_parser("patch", help="the patch series: status, apply, verify", add_help=False)
    commands.add_parser("probe", help="ask a running replica: startup, live or ready", add_help=False)
    for one in (explain, doctor, fit, listing, weights, bench, compare, warm):
        one.add_argument("--format", choices=("text", "json"), default="text")
    return top


def _add_choices(command: argparse.ArgumentParser) -> None:
    command.epilog = "Every other flag is vLLM's own, before or after `--`."
    command.add_argument("--profile", metavar="P", help="a way to serve, from `dsv4 profiles`, or `auto` (PROFILE)")
    command.add_argument("--model", metavar="M", help="a model, its repository, a folder, or NAME=FOLDER (MODEL)")
    command.add_argument("--hardware", metavar="H", help="the kind of GPU; read through NVML if absent (HARDWARE)")
    command.add_argument("--tp", metavar="N", help="tensor parallel size, in GPUs (TP)")
    command.add_argument("--nccl", metavar="SET", help="a set of NCCL variables, or `none` (DSV4_NCCL)")
    command.add_argument(
        "--skip", metavar="NAME", action="append", default=[], help="override one check or refusal by name (DSV4_SKIP)"
    )


def _add_weights(command: argparse.ArgumentParser) -> None:
    command.epilog = "Exit status 1: not everything is here, or not as it has to be."
    command.add_argument("action", choices=("status", "fetch", "verify"))
    command.add_argument("model", metavar="MODEL", help="a model of `dsv4 profiles`, or OWNER/NAME")
    command.add_argument("--to", metavar="FOLDER", help="a folder of its own, in place of the Hub's cache")
    command.add_argument("--revision", metavar="R", help="a branch, a tag or a commit")
