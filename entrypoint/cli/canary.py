"""`dsv4 canary`: give replicas of a new image a growing share of the requests, and promote them or roll back."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..listen import HEALTH_PORT
from . import arguments
from .output import answer, print_message

if TYPE_CHECKING:
    from ..rollout.judge import CanaryLimits
    from ..rollout.run import Rollout
    from .parser import Commands

_STEPS, _MINUTES = "1,5,25,100", 10.0


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "canary",
        "Give a new image more and more requests, or roll it back.",
        run,
        details="Their draft acceptance, answers, errors and times are compared with those of the stable replicas.",
        epilog="Status 0: promoted. Status 1: rolled back. Ctrl-C rolls back; a run that was killed continues.",
    )
    parser.add_argument(
        "--steps",
        type=steps,
        default=_STEPS,
        metavar="P,P,...",
        help=f"shares in percent, one after the other (default: {_STEPS})",
    )
    parser.add_argument(
        "--minutes-per-step",
        type=arguments.above_zero(),
        default=_MINUTES,
        metavar="M",
        help="keep each share for M minutes; three times as long while evidence is missing (default: %(default)g)",
    )
    parser.add_argument("--dry-run", action="store_true", help="read both sides and list the steps; change nothing")
    parser.add_argument(
        "--roll-back", action="store_true", help="send every request to the stable replicas now, and stop"
    )
    _add_limits(parser)
    group = parser.add_argument_group("replicas")
    for option, what, default in (
        ("--stable", "vLLM's API of the stable replicas", "http://replica:8000"),
        ("--candidate", "vLLM's API of the candidates", "http://candidate:8000"),
        ("--balancer", "status port of HAProxy", "http://balancer:8404"),
    ):
        group.add_argument(
            option,
            nargs="+",
            default=[default],
            metavar="URL",
            help=f"{what}; every address of a name counts (default: {default})",
        )
    group.add_argument(
        "--health-port",
        type=arguments.port,
        default=HEALTH_PORT,
        metavar="N",
        help="port of the health servers (default: %(default)s)",
    )
    group.add_argument("--api-key-file", metavar="FILE", help="read the replicas' key from FILE (env: API_KEY_FILE)")
    group.add_argument(
        "--canary-key-file", metavar="FILE", help="read the balancer's canary key from FILE (env: CANARY_KEY_FILE)"
    )
    arguments.add_out(parser)
    arguments.add_format(parser)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--least-requests",
        type=arguments.count,
        default=20,
        metavar="N",
        help="require N requests on each side (default: %(default)s)",
    )
    group.add_argument(
        "--least-drafts",
        type=arguments.count,
        default=1000,
        metavar="N",
        help="require N drafts on each side (default: %(default)s)",
    )
    for option, default, what in (
        ("--acceptance-drop", 0.05, "allow acceptance at a position to be S below the stable replicas'"),
        ("--error-rise", 0.01, "allow the share of failed requests to be S above the stable replicas'"),
        ("--ttft-ratio", 1.5, "allow S times the stable replicas' time to first token, 90th percentile"),
    ):
        group.add_argument(
            option, type=arguments.above_zero(), default=default, metavar="S", help=f"{what} (default: %(default)s)"
        )


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Take the steps, keep the result, and print it."""
    from .. import results
    from ..exit_status import ExitStatus, of_signal
    from ..rollout import report
    from ..rollout import run as rollouts
    from . import log

    log.to_stderr()
    rollout = _rollout(options)
    if options.roll_back:
        rollout.balancers.set(0, 1)
        print_message("every request goes to the stable replicas.")
        return ExitStatus.DONE
    left, candidates = rollouts.prepared(rollout)
    if options.dry_run:
        shown = (
            f"candidates ready: {candidates}; steps: {', '.join(f'{step} %' for step in left)}; nothing was changed."
        )
        return answer(options, lambda: {"steps": list(left), "candidates": candidates}, lambda: shown)
    results.check_writable(options.out, "canary")
    outcome = rollouts.run(rollout, left)
    names = {"stable": options.stable, "candidates": options.candidate, "balancers": options.balancer}
    found = report.body(outcome, rollout.limits, names, _plan(rollout))
    result = results.read_one(results.write(options.out, "canary", found))
    answer(options, lambda: result, lambda: report.text(result))
    if outcome.stopped:
        return of_signal(outcome.stopped)
    return ExitStatus.DONE if outcome.promoted else ExitStatus.NO


def _rollout(options: argparse.Namespace) -> Rollout:
    from .. import api_key
    from ..client import endpoint
    from ..errors import UsageError
    from ..rollout.addresses import resolved
    from ..rollout.balancers import Balancers
    from ..rollout.replicas import ReplicaSet
    from ..rollout.run import Rollout

    key = endpoint.key_of(options.api_key_file, os.environ)
    file = options.canary_key_file or os.environ.get("CANARY_KEY_FILE")
    if not file:
        raise UsageError(
            "`dsv4 canary` needs the balancer's canary key: pass --canary-key-file FILE (CANARY_KEY_FILE)."
        )
    urls = {
        option: [endpoint.checked_url(f"--{option}", url) for url in getattr(options, option)]
        for option in ("stable", "candidate", "balancer")
    }
    return Rollout(
        ReplicaSet(urls["stable"], options.health_port, key, resolved),
        ReplicaSet(urls["candidate"], options.health_port, key, resolved),
        Balancers(urls["balancer"], api_key.key_in(file, f"canary key {file}"), resolved),
        options.steps,
        options.minutes_per_step * 60,
        _limits(options),
    )


def _limits(options: argparse.Namespace) -> CanaryLimits:
    import dataclasses

    from ..rollout.judge import CanaryLimits

    return CanaryLimits(**{one.name: getattr(options, one.name) for one in dataclasses.fields(CanaryLimits)})


def _plan(rollout: Rollout) -> dict[str, Any]:
    """Return the description of one candidate; empty where none can be read any more."""
    from ..client.endpoint import Endpoint
    from ..client.errors import RequestFailed

    for address in rollout.candidates.addresses():
        try:
            one = Endpoint(address.url, rollout.candidates.health(address), rollout.candidates.key).plan()
        except RequestFailed:
            continue
        return one.to_json()
    return {}


def steps(text: str) -> Sequence[int]:
    """Return shares in percent, each above the one before; the first leaves the stable replicas some traffic."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole percentages, as {_STEPS} is")
    found = [int(part) for part in parts]
    if found != sorted(set(found)) or not 0 < found[0] < 100 or found[-1] > 100:
        raise argparse.ArgumentTypeError(
            f"{text!r} does not rise from 1 to 100 with a first step below 100, which leaves stable replicas to compare"
        )
    return found
