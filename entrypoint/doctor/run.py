"""Run every check that a request calls for, and answer with all problems at once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..catalog.catalog import Catalog, Hardware, ProfileFile
from ..checkpoint import read
from ..checkpoint.read import Checkpoint
from ..errors import HostError
from ..machine import detect
from ..machine.host import Host, read_host
from ..machine.requirements import Asked, asked
from ..machine.topology import Topology, obstacle_to_peers, read_topology
from ..memory import estimate
from ..plan import Plan
from ..request import Request
from ..resolve import auto, constraints
from ..resolve.layers import resolve
from ..resolve.select import Found, Selection, select
from . import registry
from . import report as reports
from .all_reduce.try_nccl_sets import prove
from .checkpoint_requirements import wanted
from .checks import checkpoint as checkpoint_checks
from .report import Report

UNKNOWN = ProfileFile("unknown", "hardware not known", Hardware())
_OF_HOST = frozenset({"gpu-count"})
_NO_GPU = "this host: no NVIDIA driver here"


@dataclasses.dataclass(frozen=True)
class Around:
    """What surrounds a check: the process environment, who hears of progress, and what is looked at."""

    environ: Mapping[str, str]
    say: Callable[[str], None]
    collective: bool | None = None
    """Whether an all-reduce is tried; None: where GPUs have no NVLink between them."""
    compare: bool = False
    """Whether peer access is tried too, where the plan goes without it only because nobody has proven it."""
    serving: bool = False
    """The health server holds its port already."""
    patches: Callable[[], frozenset[str] | None] = lambda: None
    """Names of the patches in the installed vLLM; None where that is not known."""
    skip: frozenset[str] = frozenset()
    """Names of checks that are not asked."""


def doctor(catalog: Catalog, request: Request, around: Around) -> Report:
    """
    Look at everything for a request; raise UserError for one that cannot be understood.

    Without a driver a named model is looked at alone; without a model, the host is.
    """

    @functools.cache
    def find() -> Found:
        return detect.find(catalog, around.environ)

    request = auto.settle(catalog, request, find)
    try:
        selection = select(catalog, request, find)
    except detect.NoGpu as error:
        if "model" not in request.choices:
            return _host_alone(request, around, str(error))
        selection = select(catalog, request, lambda: Found(UNKNOWN.name, "not known", entry=UNKNOWN))
    constraints.require_known(selection, request.skip)
    skip = frozenset((*request.skip, *(["profile-hardware"] if selection.hardware is UNKNOWN else [])))
    plan = resolve(selection, dataclasses.replace(request, skip=tuple(constraints.skippable(selection))))
    seen = look(selection, plan, dataclasses.replace(around, skip=skip))
    refused = [
        reports.Found(name, dataclasses.replace(problem, seen=f"{where}: {problem.seen}"), name in _OF_HOST)
        for name, where, problem in constraints.problems(selection, plan.flags, plan.env)
        if name not in skip
    ]
    return reports.report([*seen.found, *refused], seen.unseen)


def before_start(selection: Selection, plan: Plan, around: Around) -> Report:
    """Look at everything for a plan that nothing has refused; it records what is to be skipped."""
    skip = frozenset(name.removeprefix("skip ") for name in plan.choices if name.startswith("skip "))
    return look(selection, plan, dataclasses.replace(around, skip=skip))


def look(selection: Selection, plan: Plan, around: Around) -> Report:
    """Look at checkpoint, host, GPUs, topology, all-reduce and memory for one plan."""
    found: list[reports.Found] = []
    unseen: list[str] = []
    seen, why = _checkpoint(plan, around.environ)
    if seen is None:
        unseen.append(f"the checkpoint: {why}")
    else:
        found += _of_checkpoint(seen, selection, plan, around)
    needs = asked(plan, selection.hardware, selection.model.get("architecture"), around.environ)
    if around.serving:
        needs = dataclasses.replace(needs, ports=needs.ports[:1])
    host = read_host(needs)
    if seen is not None and host.driver and host.driver.error and not host.module and not around.serving:
        unseen.append(_NO_GPU)
    else:
        found += reports.ask(registry.HOST, around.skip, host, needs)
        found += _of_gpus(plan, host, needs, around, unseen)
    facts = estimate.memory(selection, plan.flags)
    if facts:
        found += reports.ask(registry.GROUPS["Memory"], around.skip, facts, of_host=False)
    elif needs.gpus:
        unseen.append("memory: the profile files do not say enough")
    return reports.report(found, unseen)


def _host_alone(request: Request, around: Around, why: str) -> Report:
    size = request.command_line.flags.get("tensor-parallel-size") or request.environment.flags.get(
        "tensor-parallel-size"
    )
    count = size.value if size else Asked.gpus
    needs = Asked(gpus=count, group=count, env=around.environ)
    found = list(reports.ask(registry.HOST, request.skip, read_host(needs), needs))
    if not any(one.problem.fatal for one in found):
        raise HostError(why)
    return reports.report(found, ("the checkpoint and memory: the hardware is not known, so no model was chosen",))


def _of_checkpoint(seen: Checkpoint, selection: Selection, plan: Plan, around: Around) -> Iterator[reports.Found]:
    patches = around.patches() if seen.is_deepseek_v4 else None
    for name, problem in checkpoint_checks.examine(seen, wanted(plan, selection.model, patches), around.skip):
        yield reports.Found(name, problem, of_host=False)


def _of_gpus(plan: Plan, host: Host, needs: Asked, around: Around, unseen: list[str]) -> Iterator[reports.Found]:
    """Yield what is wrong with how the GPUs are connected, and with an all-reduce between them."""
    if host.driver is None or host.driver.error or needs.group < 2 or len(host.visible.indexes) < needs.group:
        return
    topology = read_topology(host.driver, host.visible.indexes)
    yield from reports.ask(registry.TOPOLOGY, around.skip, topology, needs)
    group = topology.gpus[: needs.group]
    linked = topology.nvlinked(group)
    if around.collective is False or (around.collective is None and linked):
        unseen.append(f"an all-reduce: {'NVLink connects the GPUs' if linked else 'not asked for'}")
        return
    connected = "NVLink" if linked else "no NVLink"
    around.say(
        f"trying an all-reduce between GPUs {', '.join(map(str, group))}, 20 s at most: {connected} between them"
    )
    proof = prove(_sets(plan, topology, group, needs, around), needs.group)
    for name, result in proof.tried:
        around.say(f"all-reduce with {name}: {result}")
    if proof.chosen == _PEERS:
        around.say("peer access is proven: --nccl p2p-on (DSV4_NCCL=p2p-on) serves with it")
    yield from reports.ask(registry.COLLECTIVE, around.skip, proof.tried[-1][1])


_PEERS = "p2p-on"


def _sets(
    plan: Plan, topology: Topology, group: tuple[int, ...], needs: Asked, around: Around
) -> list[tuple[str, Mapping[str, str]]]:
    """Return the environments to try, best first; the plan's own is the last."""
    own = plan.choices.get("nccl")
    sets: list[tuple[str, Mapping[str, str]]] = [
        (f"the plan's settings ({own.value})" if own else "the plan's settings", dict(needs.env))
    ]
    unproven = own is not None and own.value == "p2p-off" and own.origin.startswith("topology")
    if around.compare and unproven and not obstacle_to_peers(topology, group):
        plain = {name: value for name, value in needs.env.items() if not name.startswith("NCCL_")}
        peers = Catalog([]).nccl(_PEERS, "").own.env
        sets.insert(0, (_PEERS, {**plain, **{name: str(value) for name, value in peers.items()}}))
    return sets


def _checkpoint(plan: Plan, environ: Mapping[str, str]) -> tuple[Checkpoint | None, str]:
    """Read the folder that the plan loads: the one that was named, else the snapshot in the Hub's cache, if whole."""
    named = str(plan.flags["model"].value)
    if Path(named).is_dir() or named.startswith(("/", "./", "../")):
        return _read(Path(named)), ""
    if not _in_cache(named, plan, environ):
        return None, f"{named} is not in the Hub's cache, and vLLM fetches it"
    from ..weights.hub import Place, cached

    folder = cached(named, Place(cache=_download_folder(plan), revision=plan.value("revision") or None))
    if folder is None:
        return None, f"{named} is not in the Hub's cache, and vLLM fetches it"
    seen = _read(folder)
    if not seen.shards or seen.listed - seen.shards.keys():
        return None, f"{named} is not whole in the Hub's cache, and vLLM fetches the rest"
    return seen, ""


def _read(folder: Path) -> Checkpoint:
    """Read a folder of weights; one that cannot be listed holds nothing."""
    try:
        return read.read(folder)
    except OSError:
        nothing = read.Document({}, absent=True)
        return Checkpoint(folder, frozenset(), nothing, nothing, {})


def _in_cache(repository: str, plan: Plan, environ: Mapping[str, str]) -> bool:
    """Tell whether the Hub's cache has a folder for a repository, before huggingface_hub is imported (0.2 s)."""
    base = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    home = Path(environ.get("HF_HOME") or base / "huggingface")
    cache = _download_folder(plan) or Path(environ.get("HF_HUB_CACHE") or home / "hub")
    return (cache / f"models--{repository.replace('/', '--')}").is_dir()


def _download_folder(plan: Plan) -> Path | None:
    named = plan.value("download-dir")
    return Path(named) if named else None
