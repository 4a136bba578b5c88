"""Where a plan does not fit its GPUs: the size or the model that does, or how many GPUs it takes. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from ..catalog.catalog import ProfileFile
from ..catalog.schema import Model
from ..memory.estimate import MemoryEstimate
from ..parallel import Parallel, parallel_of
from ..plan import Setting
from . import memory_inputs
from .select import Selection

_SIZES = (1, 2, 4, 8)
"""Tensor parallel sizes that are tried where the profile and the model name none."""

Fits = Callable[[MemoryEstimate], bool]


def other_size(selection: Selection, flags: Mapping[str, Setting]) -> str:
    """Return the one change that leads on, or the reason why these GPUs cannot hold the plan."""
    memory, seen, shape = memory_inputs.estimate(selection, flags), visible(selection, flags), parallel_of(flags)
    if seen is not None and (fewer := _fewer_groups(shape, seen)):
        return fewer
    groups = shape.gpus // shape.tensor
    seen = None if seen is None else seen // groups
    own = _sizes(selection, selection.model)
    if memory is None:
        here = [size for size in own if seen is None or size <= seen]
        return f"set --tp {here[-1]}" if here else _end(selection, min(own), groups)
    if share := _higher_share(selection, memory):
        return f"raise gpu-memory-utilization to {share:g}"
    for fits in (_starts, _holds_weights):
        for model, size in _candidates(selection):
            if (seen is None or size <= seen) and fits(_of(memory, selection, model, size)):
                return _change(selection, model, size)
    return _of_more(selection, memory, groups)


def _of_more(selection: Selection, memory: MemoryEstimate, groups: int) -> str:
    """Say how many of these GPUs hold the plan's model, or what else it takes."""
    model, own = selection.model, _sizes(selection, selection.model)
    if sizes := [size for size in own if _holds_weights(_of(memory, selection, model, size))]:
        return _end(selection, sizes[0], groups)
    share = selection.hardware.flags().get("gpu-memory-utilization")
    if isinstance(share, float) and memory.utilization < share:
        return f"raise gpu-memory-utilization to {share:g}"
    kind, sizes_of = model.get("architecture") or model.name, f"profile {selection.profile.name}"
    return f"no {kind} model fits {selection.hardware.name} at the sizes of {sizes_of}: use GPUs with more memory"


def visible(selection: Selection, flags: Mapping[str, Setting]) -> int | None:
    """Return the GPUs of all nodes, if each has as many as this host; None where this host was not read."""
    nodes = flags["nnodes"].value if "nnodes" in flags else 1
    return None if selection.gpus is None else selection.gpus * max(1, nodes if isinstance(nodes, int) else 1)


def _higher_share(selection: Selection, memory: MemoryEstimate) -> float | None:
    """Return the hardware's own gpu-memory-utilization, if the plan has less and would start with that."""
    own = selection.hardware.flags().get("gpu-memory-utilization")
    if not isinstance(own, float) or memory.utilization >= own:
        return None
    return own if _starts(dataclasses.replace(memory, utilization=own)) else None


def _starts(memory: MemoryEstimate) -> bool:
    return _holds_weights(memory) and (not memory.sized or memory.admits)


def _holds_weights(memory: MemoryEstimate) -> bool:
    return memory.kv_available_gib > 0


def _candidates(selection: Selection) -> Iterator[tuple[ProfileFile[Model], int]]:
    """Yield the plan's own model with every size, then the others of its architecture, the largest first."""
    yield from ((selection.model, size) for size in _sizes(selection, selection.model))
    allowed, kind = selection.profile.get("models"), selection.model.get("architecture")
    others = [
        model
        for model in (selection.catalog.every_model() if selection.catalog else ())
        if model.get("architecture") == kind and model.get("weights_gib") and (not allowed or model.is_one_of(allowed))
    ]
    for model in sorted(others, key=lambda one: one.get("weights_gib"), reverse=True):
        yield from ((model, size) for size in _sizes(selection, model))


def _sizes(selection: Selection, model: ProfileFile[Model]) -> list[int]:
    """Return the sizes that both the profile and a model allow, ascending."""
    lists = [file.get("tensor_parallel_sizes") for file in (selection.profile, model)]
    return sorted(set.intersection(*(set(sizes or _SIZES) for sizes in lists))) or [selection.tensor_parallel_size]


def _of(memory: MemoryEstimate, selection: Selection, model: ProfileFile[Model], size: int) -> MemoryEstimate:
    """Return the estimate for another model or size, with the plan's other settings."""
    if model is selection.model:
        return dataclasses.replace(memory, tensor_parallel_size=size)
    total = model.get("weights_gib")
    replicated = min(model.get("replicated_gib"), total)
    return dataclasses.replace(memory, tensor_parallel_size=size, checkpoint_gib=total, replicated_gib=replicated)


def _change(selection: Selection, model: ProfileFile[Model], size: int) -> str:
    changes = [f"--model {model.name}"] if model is not selection.model else []
    changes += [f"--tp {size}"] if size != selection.tensor_parallel_size else []
    return f"set {' and '.join(changes)}" if changes else "lower --max-model-len"


def _fewer_groups(shape: Parallel, seen: int) -> str:
    """Return the change where the groups alone take more GPUs than there are, however small each of them is."""
    if shape.gpus // shape.tensor <= seen:
        return ""
    if shape.data > 1:
        return f"set --data-parallel-size {max(1, seen // (shape.gpus // shape.data))}"
    return f"set --pipeline-parallel-size {max(1, seen // (shape.gpus // shape.pipeline))}"


def _end(selection: Selection, size: int, groups: int) -> str:
    """Say how many GPUs it takes; no setting leads on from here."""
    gpus = "" if selection.gpus is None else f", and this process sees {selection.gpus}; more hosts count with --nnodes"
    fewer = f"with --tp {size} " if size < selection.tensor_parallel_size else ""
    return f"{fewer}it takes {size * groups} x {selection.hardware.name}{gpus}"
