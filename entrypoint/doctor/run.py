"""Run every check that a request calls for, and report all problems at once: resolve, read facts, check, report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ..catalog.catalog import Catalog, ProfileFile
from ..catalog.schema import Hardware
from ..errors import HostError, SeveralProblems
from ..machine import detect
from ..machine.gpus import HostGpus
from ..machine.host import Host, read_host
from ..machine.machine import Machine
from ..machine.requirements import HostRequirements
from ..plan import TENSOR_PARALLEL_SIZE, Plan
from ..request import Request
from ..resolve import auto, constraints
from ..resolve.layers import resolve
from ..resolve.select import Selection, select
from . import registry
from .all_reduce.trial import try_all_reduce
from .checks.checkpoint import examine
from .facts import Facts, read_facts
from .options import DoctorOptions
from .report import Diagnosis, DoctorReport, diagnose, report

UNKNOWN = ProfileFile("unknown", "hardware unknown", Hardware())
_OF_HOST = frozenset({"gpu-count"})


def doctor(catalog: Catalog, request: Request, machine: Machine, options: DoctorOptions) -> DoctorReport:
    """
    Check everything for a request; raise UserError for an invalid one.

    Without a driver, only the named model is checked; if no model is named either, only the host.
    """

    def hardware() -> HostGpus:
        return detect.hardware_of(machine, catalog)

    if request.problems:
        raise SeveralProblems(request.problems)
    request = auto.settle(catalog, request, hardware)
    try:
        selection = select(catalog, request, hardware)
    except detect.NoGpu as error:
        if "model" not in request.choices:
            return _check_host_alone(request, machine, options, str(error))
        selection = select(catalog, request, lambda: HostGpus(UNKNOWN.name, "unknown", profile_file=UNKNOWN))
    constraints.require_known(selection, request.skip, lambda: registry.NAMES)
    skip = frozenset(request.skip)
    if selection.hardware is UNKNOWN:
        skip |= {"profile-hardware"}
    plan = resolve(selection, dataclasses.replace(request, skip=(*constraints.names(selection), *request.skip)))
    checked = check_plan(selection, plan, machine, dataclasses.replace(options, skip=skip))
    return report([*checked.diagnoses, *_violated(selection, plan, skip)], checked.not_checked)


def before_start(selection: Selection, plan: Plan, machine: Machine, options: DoctorOptions) -> DoctorReport:
    """Check a plan that no constraint has refused; its choices record which checks to skip."""
    skip = frozenset(name.removeprefix("skip ") for name in plan.choices if name.startswith("skip "))
    return check_plan(selection, plan, machine, dataclasses.replace(options, skip=skip))


def check_plan(selection: Selection, plan: Plan, machine: Machine, options: DoctorOptions) -> DoctorReport:
    """Check checkpoint, host, GPUs, topology, all-reduce and memory for one plan."""
    facts = read_facts(selection, plan, machine, options)
    collective, not_tried = _collective(plan, facts, options)
    access = diagnose(registry.ACCESS, options.skip, facts.host_required, of_host=False)
    diagnoses = [
        *access,
        *_of_checkpoint(facts, options),
        *_of_host(facts, options),
        *collective,
        *_of_memory(facts, options),
    ]
    return report(diagnoses, [*facts.not_checked, *not_tried])


def _violated(selection: Selection, plan: Plan, skip: frozenset[str]) -> Iterator[Diagnosis]:
    """Yield the constraints that the plan violates, each with its origin."""
    for name, where, problem in constraints.violated(selection, plan.flags, plan.env, skip):
        if name not in skip:
            yield Diagnosis(name, dataclasses.replace(problem, seen=f"{where}: {problem.seen}"), name in _OF_HOST)


def _of_checkpoint(facts: Facts, options: DoctorOptions) -> Iterator[Diagnosis]:
    if facts.checkpoint:
        for name, problem in examine(facts.checkpoint, facts.checkpoint_required, options.skip):
            yield Diagnosis(name, problem, of_host=False)


def _of_host(facts: Facts, options: DoctorOptions) -> Iterator[Diagnosis]:
    if facts.host:
        yield from _host_checks(facts.host, facts.host_required, options.skip)
        if _has_group(facts):
            yield from diagnose(registry.TOPOLOGY, options.skip, facts.host.machine.topology, facts.host_required)


def _host_checks(host: Host, required: HostRequirements, skip: frozenset[str]) -> Iterator[Diagnosis]:
    return diagnose(registry.host_checks(gpus=required.gpus > 0), skip, host, required)


def _has_group(facts: Facts) -> bool:
    """Tell whether a replica needs several GPUs and this host shows enough of them."""
    required = facts.host_required
    machine = facts.host.machine if facts.host else Machine()
    return not machine.driver.error and required.group > 1 and len(machine.visible.indexes) >= required.group


def _collective(plan: Plan, facts: Facts, options: DoctorOptions) -> tuple[list[Diagnosis], list[str]]:
    """Return what is wrong with an all-reduce between the GPUs of a replica, and why none was tried."""
    if facts.host is None or not _has_group(facts):
        return [], []
    result = try_all_reduce(plan, facts.host.machine.topology, facts.host_required, options)
    if isinstance(result, str):
        return [], [f"an all-reduce: {result}"]
    return list(diagnose(registry.COLLECTIVE, options.skip, result)), []


def _of_memory(facts: Facts, options: DoctorOptions) -> Iterator[Diagnosis]:
    if facts.memory:
        yield from diagnose(registry.GROUPS["Memory"], options.skip, facts.memory, of_host=False)


def _check_host_alone(request: Request, machine: Machine, options: DoctorOptions, why: str) -> DoctorReport:
    """Check the host for the hardware-independent part of a request; raise HostError when nothing is wrong with it."""
    size = request.flag(TENSOR_PARALLEL_SIZE)
    count = size.value if size else HostRequirements.gpus
    required = HostRequirements(gpus=count, group=count, env=options.environ)
    diagnoses = list(_host_checks(read_host(machine, required), required, frozenset(request.skip)))
    if not any(diagnosis.problem.fatal for diagnosis in diagnoses):
        raise HostError(why)
    return report(diagnoses, ("the checkpoint and memory: the hardware is unknown, so no model was selected",))
