"""Find unsupported combinations: why each fails, and what to use instead. Pure."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from ..catalog.catalog import ProfileFile
from ..catalog.schema import Base, Constraint
from ..errors import ConfigError, nearest
from ..memory import checks as memory_checks
from ..memory.cache_layout import CACHE_LAYOUTS, POSITIONS
from ..parallel import parallel_of
from ..plan import TENSOR_PARALLEL_SIZE, Setting
from ..problem import Problem
from ..vllm_schema import schema
from . import drafting, environment, kernels, memory_inputs, offloading, quantization, remedies, shape, weight_cache
from .matching import matching
from .select import Selection
from .wording import described, hardware_of

MEMORY = frozenset({"weights", "kv-cache"})
"""Names of the memory checks that prevent a start."""
RENAMED = {
    "trunk-complete": "target-model-complete",
    "dspark-only": drafting.METHOD_RULE,
    "w4a16-moe-backend": kernels.MOE,
    "nvfp4-mega-moe": kernels.MOE,
    "swiglu-clamp": kernels.MOE,
    "marlin-linear": kernels.LINEAR,
    "cutlass-linear": kernels.LINEAR,
}
"""Former names of checks and constraints; `--skip` rejects them with the new name."""
_CONTEXT = "max-model-len"
_SCOPE = {_CONTEXT, "model-files", "profile-model", "profile-hardware", TENSOR_PARALLEL_SIZE, "gpu-count"}
BUILT_IN = (
    MEMORY
    | {quantization.RULE, weight_cache.RULE, offloading.RULE}
    | drafting.RULES
    | kernels.RULES
    | shape.RULES
    | _SCOPE
)
"""Names of the constraints that are not in a `[[refuse]]` block."""

Violation = tuple[str, str, Problem]
"""A constraint's name (for `--skip`), where it comes from, and the problem."""


def names(selection: Selection) -> frozenset[str]:
    """Return the names of the constraints that this selection can violate."""
    return BUILT_IN | {rule.name for _, rule in _rules(selection)}


def require_known(selection: Selection, skip: Collection[str], check_names: Callable[[], Collection[str]]) -> None:
    """
    Raise ConfigError for a name to skip that is no constraint, no check, and no variable that vLLM does not read.

    `check_names` returns the names of the doctor's checks; it is called only for a name that is not a constraint.
    """
    skip = [name for name in skip if not environment.is_unknown(name)]  # a variable of another vLLM
    if not set(skip) - names(selection):
        return
    known = names(selection) | set(check_names())
    if renamed := sorted(set(skip) & RENAMED.keys()):
        raise ConfigError(f"--skip (DSV4_SKIP): {renamed[0]} was renamed to {RENAMED[renamed[0]]}; use the new name.")
    if unknown := sorted(set(skip) - known):
        raise ConfigError(
            f"--skip (DSV4_SKIP): {unknown[0]!r} is not a check, or a constraint of this profile, model or hardware"
            f"{nearest(unknown[0], known)}; see checks.md and refusals.md in docs/reference/."
        )


def refusals(
    selection: Selection, flags: Mapping[str, Setting], env: Mapping[str, Setting], skip: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Yield the name and the message of every reason to reject a plan; `skip` has those that are overridden."""
    if selection.fault:  # the doctor has checks of its own for it
        yield "model-files", f"model {selection.model.name}: {selection.fault}."
    found = _every(selection, flags, env, _memory(selection, flags))
    for name, where, problem in _causes(selection, flags, found, skip):
        needed = f"needed: {problem.needed}; " if problem.needed else ""
        yield name, f"{where}: {problem.seen}; {needed}{problem.fix}."


def violated(
    selection: Selection, flags: Mapping[str, Setting], env: Mapping[str, Setting], skip: Collection[str] = ()
) -> Iterator[Violation]:
    """Yield every constraint that a plan violates, except for memory, which the doctor checks itself."""
    return _causes(selection, flags, _every(selection, flags, env, ()), skip)


def _causes(
    selection: Selection, flags: Mapping[str, Setting], found: Iterable[Violation], skip: Collection[str]
) -> Iterator[Violation]:
    """
    Yield the violations without those of the same cause.

    Another profile mends what one for other hardware sets, and where the weights take more GPUs, so does the plan.
    """
    kinds = selection.profile.get("hardware")
    other = bool(kinds) and not selection.hardware.is_one_of(kinds) and "profile-hardware" not in skip

    def follows(name: str) -> bool:
        setting = flags.get(name)
        return name in MEMORY or (setting is not None and setting.of_profile)

    ends: set[str] = set()
    for name, where, problem in found:
        if (other and follows(name)) or (name == "gpu-count" and problem.fix in ends):
            continue
        if name in MEMORY:
            ends.add(problem.fix)
        yield name, where, problem


def _every(
    selection: Selection, flags: Mapping[str, Setting], env: Mapping[str, Setting], memory: Iterable[Violation]
) -> Iterator[Violation]:
    """Yield the violations of every kind in the order of an answer, those of memory as they are given."""
    yield from _other_files(selection)
    yield from _violated_rules(selection, flags, env)
    yield from quantization.violations(selection, flags)
    yield from weight_cache.violations(selection, flags)
    yield from offloading.violations(flags, env)
    yield from drafting.violations(selection, flags)
    yield from _kernels(selection, flags, env)
    yield from _too_long(selection, flags, env)
    yield from memory
    yield from _outside_scope(selection, flags)


def _other_files(selection: Selection) -> Iterator[Violation]:
    """Yield what speaks against the model in the files that it was requested with, or that vLLM would misread."""
    identity, model = selection.identity, selection.model
    if identity is None:
        return
    place = str(selection.where.value) if selection.where else str(model.flags().get("model", ""))
    layout = (model.get("architecture"), model.get("scheme"))
    is_tiny = identity.architecture == "deepseek-v4-tiny"  # constructed; the doctor compares its architecture
    found = (layout[0] if is_tiny else identity.architecture, identity.scheme)
    other = identity.unsupported
    if all(layout) and (found != layout or other):
        seen = f"{place} is {f'{other.name}, ' if other else ''}{described(identity)}"
        fix = f"what would serve: {other.instead}" if other else f"write --model {place}, and the files decide"
        yield "model-files", f"model {model.name}", Problem(seen, f"{layout[0]}, {layout[1]}", fix)
    for field in (part for part in identity.missing if part.endswith("in config.json")):
        seen = f"vLLM would misread the experts of {place}: config.json does not give the type that they have"
        yield "model-files", f"model {model.name}", Problem(seen, field, "write it, or fetch the original config.json")


def _violated_rules(
    selection: Selection, flags: Mapping[str, Setting], env: Mapping[str, Setting]
) -> Iterator[Violation]:
    """Yield the `[[refuse]]` blocks that match."""
    matches = matching(selection, flags, env)
    for file, rule in _rules(selection):
        if matches(rule):
            yield rule.name, file.file, Problem(rule.because, "", rule.instead)


def _kernels(selection: Selection, flags: Mapping[str, Setting], env: Mapping[str, Setting]) -> Iterator[Violation]:
    """Yield kernels that vLLM does not have here; what a `[[refuse]]` block speaks against is not proposed."""

    def allowed(flag: str, value: str) -> bool:
        matches = matching(selection, {**flags, flag: Setting(value, "")}, env)
        return not any(matches(rule) for _, rule in _rules(selection) if flag in rule.flags)

    yield from kernels.violations(selection, flags, allowed)


def _memory(selection: Selection, flags: Mapping[str, Setting]) -> Iterator[Violation]:
    memory = memory_inputs.estimate(selection, flags)
    for name, problem in memory_checks.problems(memory) if memory else ():
        if problem.fatal:
            fix = remedies.other_size(selection, flags) if problem.fix == memory_checks.FEWER else problem.fix
            yield name, _model_on_hardware(selection), dataclasses.replace(problem, fix=fix)


def _too_long(selection: Selection, flags: Mapping[str, Setting], env: Mapping[str, Setting]) -> Iterator[Violation]:
    """Yield a context beyond the model's positions, which vLLM ends a start with unless a variable allows it."""
    context, allowed = flags.get(_CONTEXT), env.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN")
    if (
        selection.model.get("architecture") not in CACHE_LAYOUTS
        or context is None
        or not isinstance(context.value, int)
    ):
        return
    if context.value > POSITIONS and (allowed is None or str(allowed.value).lower() not in ("1", "true")):
        seen = f"{_CONTEXT} is {context.value:,}"
        yield _CONTEXT, selection.model.name, Problem(seen, f"at most {POSITIONS:,}", f"set --{_CONTEXT} {POSITIONS}")


def _model_on_hardware(selection: Selection) -> str:
    return f"{selection.model.name} on {selection.hardware.name}"


def _outside_scope(selection: Selection, flags: Mapping[str, Setting]) -> Iterator[Violation]:
    """Yield models, hardware and sizes that the profile or model excludes, and a group larger than the hosts."""
    profile, model, hardware = selection.profile, selection.model, selection.hardware
    size, where = selection.tensor_parallel_size, f"{profile.name}, {_model_on_hardware(selection)}"
    if (models := profile.get("models")) and not model.is_one_of(models):
        seen = f"profile {profile.name} does not support model {model.name}"
        other = next(_profiles_for(selection), "")
        fix = f"set --profile {other}, or choose one with --model" if other else "choose one with --model"
        yield "profile-model", where, Problem(seen, _one_of(models), fix)
    if (kinds := profile.get("hardware")) and not hardware.is_one_of(kinds):
        seen = f"profile {profile.name} does not support {hardware.name}"
        other = next(_profiles_for(selection), "")
        fix = f"set --profile {other}" if other else "choose another --profile"
        yield "profile-hardware", where, Problem(seen, hardware_of(kinds, selection.catalog), fix)
    limits: dict[str, ProfileFile[Any]] = {f"profile {profile.name}": profile, f"model {model.name}": model}
    allowed = {name: sizes for name, file in limits.items() if (sizes := file.get("tensor_parallel_sizes"))}
    if against := [name for name, sizes in allowed.items() if size not in sizes]:
        both = sorted(set.intersection(*map(set, allowed.values())))
        seen = f"{against[0]} does not support {TENSOR_PARALLEL_SIZE} {size}"
        if len(against) > 1:
            seen = f"neither {against[0]} nor {against[1]} supports {TENSOR_PARALLEL_SIZE} {size}"
        yield TENSOR_PARALLEL_SIZE, where, Problem(seen, _one_of(both or allowed[against[0]]), "choose one with --tp")
    yield from shape.violations(selection, flags)
    here, visible = parallel_of(flags).node_gpus, selection.gpus
    if visible is not None and here > visible:
        seen = f"{shape.sizes(flags)}, but this process sees {visible} GPU{'s' * (visible != 1)}"
        yield "gpu-count", where, Problem(seen, f"{here} GPUs", remedies.other_size(selection, flags))


def _profiles_for(selection: Selection) -> Iterator[str]:
    """Yield the profiles for the plan's model and hardware."""
    catalog = selection.catalog
    if catalog is None:
        return
    for name in catalog.names("profile"):
        profile = catalog.profile(name, name)
        kinds = profile.get("hardware")
        if selection.model.is_one_of(profile.get("models")) and (not kinds or selection.hardware.is_one_of(kinds)):
            yield name


def _one_of(values: Collection[Any]) -> str:
    return ("one of " if len(values) > 1 else "") + ", ".join(map(str, values))


def _rules(selection: Selection) -> Iterator[tuple[ProfileFile[Any], Constraint]]:
    files: list[ProfileFile[Any]] = [selection.root, selection.model, selection.hardware, selection.profile]
    for file in files:
        for link in file.chain():
            yield from ((link, rule) for rule in _rules_of(link))


@functools.lru_cache(maxsize=256)
def _rules_of(link: ProfileFile[Base]) -> list[Constraint]:
    for rule in link.own.refuse:
        _check_names(rule, f"{link.file} [[refuse]] {rule.name}")
    return link.own.refuse


def _check_names(rule: Constraint, origin: str) -> None:
    """Raise ConfigError for a condition on a name that vLLM does not have: it could never match."""
    for name, value in rule.flags.items():
        schema.check_long_flag(name, origin)
        for key in value if isinstance(value, dict) else ():
            schema.check_key(f"{name}.{key}", origin)
    for name, value in rule.env.items():
        schema.check_variable(name, str(value), origin)
