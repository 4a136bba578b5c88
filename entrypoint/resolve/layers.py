"""
Turn the selected profile files and the request into one plan. Pure: reads no file, prints nothing.

`layers` holds the precedence, lowest first; later layers win key by key, tables of JSON flags too.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import supervision_settings
from ..catalog.catalog import ProfileFile
from ..catalog.schema import Base, Profile, When
from ..errors import SeveralProblems, gathered
from ..plan import Plan, Setting, Value
from ..request import Layer, Request
from ..vllm_schema import schema, settings
from ..weights import hub_files
from . import drafting, expert_input, expert_kernels, handover, long_prompts, prompt_graphs
from .constraints import refusals
from .environment import operator_layer
from .select import Selection


def resolve(selection: Selection, request: Request) -> Plan:
    """Return the plan; raise ConfigError for an unsupported combination, unless it is skipped by name."""
    flags: dict[str, Setting] = {}
    env: dict[str, Setting] = {}
    supervision = supervision_settings.defaults()
    for layer in layers(selection, request):
        merge(flags, layer.flags)
        merge(env, layer.env)
        merge(supervision, layer.supervision)
    drafting_choices = drafting.settle(selection, request, flags)
    graph_choices = prompt_graphs.settle(selection, flags)
    merge(flags, long_prompts.named(flags))
    operator, wrong = operator_layer(request.operator, frozenset(env), request.skip)
    problems = [*request.problems, *wrong]
    merge(env, operator.env)
    input_choices = expert_input.settle(selection, flags, env)
    expert_kernels.settle(selection, flags, env)
    gathered(problems, lambda: handover.by_environment(flags, env), None)
    gathered(problems, lambda: handover.check_arguments(flags), None)
    flags.setdefault("host", handover.host(env, in_container=request.in_container))
    handover.guarded(flags, env)
    gathered(problems, lambda: handover.check_near_misses(request.operator, env), None)
    choices = selection.reasons | drafting_choices | graph_choices | input_choices
    for name, sentence in refusals(selection, flags, env, request.skip):
        if name in request.skip:
            choices[f"skip {name}"] = Setting(True, f"requested; overrides {sentence}")
        else:
            problems.append(f"{sentence} To override this, use --skip {name}.")
    if "model" not in flags:
        problems.append(f"model {selection.model.name} has no repository; use --model {selection.model.name}=FOLDER.")
    if problems:
        raise SeveralProblems(problems)
    for name in request.skip:
        choices.setdefault(f"skip {name}", Setting(True, "requested"))
    return Plan(choices, flags, env, schema.shapes(), supervision)


def layers(selection: Selection, request: Request) -> Iterator[Layer]:
    """Yield every layer, lowest first: this order is the precedence."""
    yield from _file_layers(selection, selection.root)
    yield drafting.layer(selection)
    yield from _file_layers(selection, selection.model)
    yield from _file_layers(selection, selection.hardware)
    if selection.nccl:
        yield from _file_layers(selection, selection.nccl)
    yield Layer(env=selection.gpu_order)
    yield from _file_layers(selection, selection.profile)
    yield Layer(selection.shape)
    if selection.where:
        yield Layer({"model": selection.where, **_served_names(selection, selection.where)})
    yield request.environment
    yield request.command_line


def _served_names(selection: Selection, where: Setting) -> dict[str, Setting]:
    """Return the names of a repository that is not the model's own; in a folder of another artifact, one of ours."""
    repository = str(where.value)
    if hub_files.is_repository(repository) and not Path(repository).exists():
        names = [repository.partition("/")[2].lower(), repository]
        return {"served-model-name": Setting(names, f"the repository, {where.origin}")}
    own = selection.model.flags().get("served-model-name")
    if selection.drafter.kind == selection.model.get("drafter").kind or not isinstance(own, list):
        return {}
    return {"served-model-name": Setting(own[:1], f"{selection.model.file}, for another artifact, {where.origin}")}


def _file_layers(selection: Selection, file: ProfileFile[Any]) -> Iterator[Layer]:
    """Yield the file that this one extends first; for each, its own tables, then the `when` blocks that apply."""
    names = selection.names()
    for link in file.chain():
        for given, layer in _layers_of(link):
            if all(names[key] in allowed for key, allowed in given.items()):
                yield layer


@functools.lru_cache(maxsize=256)
def _layers_of(link: ProfileFile[Base]) -> list[tuple[Mapping[str, list[Any]], Layer]]:
    """Return the layers of one file, each with its conditions; those that do not apply are checked too."""
    of_profile = isinstance(link.own, Profile)
    found: list[tuple[Mapping[str, list[Any]], Layer]] = [({}, _layer(link.own, link.file, of_profile=of_profile))]
    for when in link.own.when:
        given = when.given()
        label = ", ".join(f"{key} = {'|'.join(map(str, allowed))}" for key, allowed in given.items())
        found.append((given, _layer(when, f"{link.file} [[when]] {label}", of_profile=of_profile)))
    return found


def _layer(own: Base | When, label: str, *, of_profile: bool) -> Layer:
    def named(values: Mapping[str, Value], table: str = "") -> dict[str, Setting]:
        return {
            name: Setting(value, f"{label} [{table or name.partition('.')[0]}]", of_profile=of_profile)
            for name, value in values.items()
        }

    return Layer(
        named(settings.flags(own.flags, f"{label} [flags]"), "flags"),
        named(settings.variables(own.env, f"{label} [env]"), "env"),
        named(supervision_settings.settings({"gate": own.gate, "supervise": own.supervise}, label)),
    )


def merge(into: dict[str, Setting], above: Mapping[str, Setting]) -> None:
    """Lay `above` over `into`; replaced settings are kept as history, nearest first."""
    for name, setting in above.items():
        table = name.partition(".")[0]  # most others begin with another word
        others = [name] if name in into else [o for o in into if o.startswith(table) and _same(o, name)]
        replaced = [into.pop(other) for other in others]
        into[name] = dataclasses.replace(setting, overridden=tuple(_history(replaced)))


def _same(name: str, other: str) -> bool:
    """Return whether two settings exclude each other: equal names, or one is the table that contains the other."""
    return name == other or name.startswith(f"{other}.") or other.startswith(f"{name}.")


def _history(replaced: Iterable[Setting]) -> Iterator[Setting]:
    for setting in replaced:
        yield dataclasses.replace(setting, overridden=())
        yield from setting.overridden
