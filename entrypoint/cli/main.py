"""The command `dsv4`: the only module here that prints and exits."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, HostError, NotFound, UsageError, UserError, nearest
from ..plan import Plan
from . import parser as line
from . import render
from .this_machine import this_machine

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ..client.endpoint import Endpoint
    from ..doctor.options import DoctorOptions
    from ..resolve.select import Selection
    from ..supervisor.context import ServeContext


_FRESH = 5.0  # seconds; after a longer backoff other processes may hold the GPUs, or hold them no more


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status; a user's mistake becomes one sentence on stderr."""
    try:
        try:
            return _dispatch(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()
    except UserError as error:
        _say(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        return 128 + 2  # as a shell reports SIGINT
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left would be written at the end
        if error.errno == errno.EPIPE:
            return 128 + 13  # as a shell reports SIGPIPE
        _say(f"standard output cannot be written ({error.strerror}).")
        return HostError.exit_status


def _dispatch(words: list[str]) -> int:
    """A leading flag means `serve`; a first word that is none of our commands is run as it stands."""
    if not words or words[0] in ("-h", "--help"):
        line.parser().print_help()
        return 0
    if words[0] == "--version":
        print(f"dsv4-serve {_version()}")
        return 0
    if words[0].startswith("-"):
        words.insert(0, "serve")
    if words[0] == "probe":
        from ...healthcheck.probe import probe

        status, text = probe(words[1:])
        print(text, file=sys.stderr if status else sys.stdout)
        return status
    if words[0] == "patch":
        from ...patcher.cli import main as patch

        return patch(words[1:])
    if words[:2] == ["bench", "compare"]:
        words[:2] = ["bench compare"]
    if words[0] not in line.COMMANDS:
        return _run_other(words)
    cut = words.index("--") if "--" in words else len(words)
    options, flags = line.parser().parse_known_args(words[:cut])
    flags += words[cut + 1 :]
    if flags and words[0] not in line.TAKE_FLAGS:
        raise UsageError(f"`dsv4 {words[0]}` takes no {flags[0]!r}; see `dsv4 {words[0]} --help`.")
    return _COMMANDS[words[0]](options, flags)


def _run_other(words: list[str]) -> int:
    from ..supervisor import passthrough

    try:
        return passthrough.run(words, os.environ)
    except NotFound as error:
        known = f"Commands of dsv4: {', '.join(line.COMMANDS)}{nearest(words[0], line.COMMANDS)}"
        raise NotFound(f"{error} {known}") from None


def _resolved(options: argparse.Namespace, words: list[str], skip: tuple[str, ...] = ()) -> tuple[Selection, Plan]:
    """Lay the command line over the environment, look at the host where nothing is named, and resolve."""
    import dataclasses

    from ..catalog.catalog import Catalog
    from ..machine import detect
    from ..resolve import environment
    from ..resolve.resolution import resolve_request

    request, catalog = line.request(options, words), Catalog(environment.folders())
    request = dataclasses.replace(request, skip=(*request.skip, *skip))

    resolved = resolve_request(catalog, request, lambda: detect.hardware_of(this_machine(), catalog), _check_names)
    return resolved.selection, resolved.plan


def _check_names() -> frozenset[str]:
    from ..doctor.registry import NAMES

    return NAMES


def _serve(options: argparse.Namespace, words: list[str]) -> int:
    """Show the plan, and unless this is a dry run run vLLM until it ends."""
    if options.dry_run:
        _show(_resolved(options, words)[1])
        return 0
    import asyncio

    from ..resolve import environment
    from ..supervisor import passthrough, run_folder
    from ..supervisor.context import ServeContext
    from . import log

    log.to_stderr()
    variables = environment.variables()
    context = ServeContext(
        environ=os.environ,
        vllm=passthrough.vllm_program(os.environ),
        health_host=variables.DSV4_HEALTH_HOST,
        health_port=variables.DSV4_HEALTH_PORT,
        run_folder=run_folder.choose(variables.DSV4_RUN_DIR, os.environ, variables.DSV4_HEALTH_PORT),
        termination_log=variables.DSV4_TERMINATION_LOG,
        interactive=sys.stderr.isatty(),
    )
    return asyncio.run(_resolve_check_supervise(options, words, context))


async def _resolve_check_supervise(options: argparse.Namespace, words: list[str], context: ServeContext) -> int:
    """Bring a request to its end and return the exit status; whichever step ends it, the lifecycle reports why."""
    import asyncio

    from ..doctor import run as doctor
    from ..supervisor.lifecycle import lifecycle
    from ..supervisor.supervisor import supervise

    async with lifecycle(context) as life:
        selection, plan = await asyncio.to_thread(_resolved_with_caches, options, words)
        _show(plan)
        await life.admit(plan)
        life.health.enter("checking")
        report = await life.unless_stopped(doctor.before_start, selection, plan, _around(options, serving=True))
        life.require(report)
        life.exit_reason = await supervise(plan, life)
    return life.exit_status


def _resolved_with_caches(options: argparse.Namespace, words: list[str]) -> tuple[Selection, Plan]:
    from ..supervisor import kernel_cache

    selection, plan = _resolved(options, words)
    return selection, kernel_cache.placed(plan, os.environ, kernel_cache.installed_folder(plan, os.environ))


def _explain(options: argparse.Namespace, words: list[str]) -> int:
    _, plan = _resolved(options, words)
    return _answer(options, plan.to_json, lambda: render.plan(plan))


def _doctor(options: argparse.Namespace, words: list[str]) -> int:
    from ..catalog.catalog import Catalog
    from ..doctor import run
    from ..resolve import environment

    request, settings = line.request(options, words), _doctor_options(options, serving=False)
    report = run.doctor(Catalog(environment.folders()), request, this_machine(), settings)
    _answer(options, report.to_json, lambda: render.report(report))
    return report.exit_status


def _fit(options: argparse.Namespace, words: list[str]) -> int:
    from ..memory import advice
    from ..resolve import constraints, memory_inputs

    selection, plan = _resolved(options, words, skip=tuple(constraints.MEMORY))
    memory = memory_inputs.estimate(selection, plan.flags)
    if memory is None or not memory.sized:
        raise ConfigError(
            f"The memory of {selection.model.name} on {selection.hardware.name} is not counted: it takes"
            " weights-gib and memory-gib in their profile files, a context, and neither pipeline nor data parallelism."
        )
    answer = advice.fit(memory)
    _answer(options, answer.to_json, lambda: advice.text(memory, answer))
    return 0 if answer.fits else 1


def _profiles(options: argparse.Namespace, _words: list[str]) -> int:
    from ..catalog import listing
    from ..catalog.catalog import Catalog
    from ..resolve import environment

    entries = listing.listing(Catalog(environment.folders()))
    return _answer(options, lambda: entries, lambda: render.profiles(entries))


def _weights(options: argparse.Namespace, _words: list[str]) -> int:
    from ..catalog.catalog import Catalog
    from ..resolve import environment
    from ..weights import hub, manifest

    repository = hub.repository_of(Catalog(environment.folders()), options.model, "command line")
    place, folder = hub.Place(revision=options.revision), Path(options.to) if options.to else None
    if options.action == "fetch":
        fetched = hub.fetch(repository, _say, place, folder)
        return _answer(options, lambda: {"folder": str(fetched)}, lambda: str(fetched))
    if options.action == "status":
        status = hub.status(repository, place, folder)
        _answer(options, status.to_json, lambda: render.status(status))
        return 0 if status.complete else 1
    where = folder or hub.cached(repository, place)
    if where is None or not where.is_dir():
        raise ConfigError(f"{repository} is not here; fetch it, or name its folder with --to.")
    verified = manifest.verify(where, manifest.read(where) or hub.listing(repository, place), _say)
    _answer(options, verified.to_json, lambda: render.verified(verified))
    return 0 if verified.whole else 1


def _up(options: argparse.Namespace, words: list[str]) -> int:
    from ..containers import daemon, up
    from ..containers import options as replicas

    options = replicas.with_demo(options, os.environ)
    _, plan = _resolved(options, words)
    asked = replicas.deployment(options, words, line.request(options, words), plan, this_machine().topology)
    up.up(daemon.connect(os.environ), asked, _say, wait=not options.no_wait)
    return 0


def _down(_options: argparse.Namespace, _words: list[str]) -> int:
    from ..containers import daemon, down

    down.down(daemon.connect(os.environ), _say)
    return 0


def _status(options: argparse.Namespace, _words: list[str]) -> int:
    from datetime import UTC, datetime

    from ..containers import daemon, status

    found = status.status(daemon.connect(os.environ))
    _answer(options, lambda: [one.to_json() for one in found], lambda: status.text(found, datetime.now(UTC)))
    return 0 if found and all(one.ready for one in found) else 1


def _logs(options: argparse.Namespace, _words: list[str]) -> int:
    from ..containers import daemon, logs

    for text in logs.lines(daemon.connect(os.environ), options.name, follow=options.follow, tail=options.tail):
        print(text, flush=True)
    return 0


def _bundle(options: argparse.Namespace, _words: list[str]) -> int:
    from ..containers import bundle, daemon
    from ..containers import options as replicas

    images = replicas.images(options, os.environ)
    bundle.bundle(daemon.connect(os.environ), *images, Path(options.out), _say)
    return 0


def _manifests(options: argparse.Namespace, _words: list[str]) -> int:
    from ..kubernetes import options as kubernetes
    from ..kubernetes import write

    asked = kubernetes.overlay(options, line.request(options, []))
    for note in asked.notes:
        _say(f"before it is applied: {note}")
    if options.out is None:
        print(write.stream(asked), end="")
        return 0
    write.folder(asked, Path(options.out))
    _say(f"{options.out} is written: `kubectl apply -k {options.out}`")
    return 0


def _smoke(options: argparse.Namespace, _words: list[str]) -> int:
    from ..client import endpoint
    from ..smoke import command
    from . import log

    log.to_stderr()
    where = endpoint.resolve(options.url, options.health, options.api_key_file, os.environ)
    settings = command.SmokeSettings(options.context_share, options.timeout, options.streams, tuple(options.skip))
    report = command.smoke(where, settings)
    _answer(options, report.to_json, report.text)
    path = command.keep(report, Path(options.out), Path(options.junit) if options.junit else None)
    _say(f"result {path}")
    return 0 if report.ok else 1


def _eval(options: argparse.Namespace, _words: list[str]) -> int:
    from ..catalog.catalog import Catalog
    from ..client import endpoint
    from ..evals import evaluate, served, text
    from ..evals import options as evals
    from ..resolve import environment
    from . import log

    log.to_stderr()
    request = evals.request(options, os.environ)
    where = endpoint.resolve(options.url, options.health, options.api_key_file, os.environ)
    found = served.look(where, Catalog(environment.folders()), options.model)
    try:
        result = evaluate.evaluate(where, found, request)
    except KeyboardInterrupt:
        _say("stopped; what was answered is kept, and --resume goes on")
        raise
    if not result:
        return 0
    _answer(options, lambda: result, lambda: text.text(result))
    return 1 if evaluate.verdict(result) == "worse" else 0


def _report(options: argparse.Namespace, _words: list[str]) -> int:
    from ..report import page

    print(page.write(options.folder, options.out))
    return 0


def _bench(options: argparse.Namespace, words: list[str]) -> int:
    from contextlib import nullcontext

    from ..bench import command, measure
    from ..bench import options as benches
    from ..client import endpoint
    from . import log

    log.to_stderr()
    request = benches.bench_request(options)
    benches.check_bench(options, words)
    replica: AbstractContextManager[Endpoint]
    if options.without_weights:
        selection, plan = _resolved(options, words)
        replica = command.without_weights(selection, plan, benches.serve_options(options, words), os.environ)
    else:
        replica = nullcontext(endpoint.resolve(options.url, options.health, options.api_key_file, os.environ))
    result = command.bench(replica, request, os.environ)
    return _answer(options, lambda: result, lambda: measure.text(result))


def _bench_compare(options: argparse.Namespace, _words: list[str]) -> int:
    from ..bench import compare

    found = compare.compare(*map(Path, options.results))
    return _answer(options, lambda: found, lambda: compare.text(found))


def _warm(options: argparse.Namespace, words: list[str]) -> int:
    from ..bench import options as benches
    from ..bench import warm
    from . import log

    log.to_stderr()
    benches.check_warm(options)
    resolved = _resolved(options, words)
    serve = benches.serve_options(options, words)
    found = warm.warm(resolved, serve, os.environ, dummy=options.without_weights, again=options.again)
    return _answer(options, lambda: found, lambda: warm.text(found))


_COMMANDS = {
    "serve": _serve,
    "explain": _explain,
    "doctor": _doctor,
    "fit": _fit,
    "profiles": _profiles,
    "weights": _weights,
    "up": _up,
    "down": _down,
    "status": _status,
    "logs": _logs,
    "bundle": _bundle,
    "manifests": _manifests,
    "bench": _bench,
    "bench compare": _bench_compare,
    "warm": _warm,
    "smoke": _smoke,
    "eval": _eval,
    "report": _report,
}


def _doctor_options(options: argparse.Namespace, *, serving: bool) -> DoctorOptions:
    """Return how much is checked; the doctor tries more than `serve`. Its progress is printed."""
    from ..doctor.options import DoctorOptions
    from . import log

    log.to_stderr()
    collective = options.collective if serving or options.collective is not None else True
    return DoctorOptions(os.environ, collective, compare=not serving, serving=serving)


def _show(plan: Plan) -> None:
    for name, setting in plan.choices.items():
        print(f"# {render.setting_line(name, setting)}")
    print(plan.command(), flush=True)


def _answer(options: argparse.Namespace, data: Any, text: Any) -> int:
    print(json.dumps(data(), indent=2) if options.format == "json" else text())
    return 0


def _say(text: str) -> None:
    print(f"dsv4: {text}", file=sys.stderr, flush=True)


def _version() -> str:
    from importlib.metadata import version

    return version("dsv4-serve")
