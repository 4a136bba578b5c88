"""What could be served on some GPUs: plans of every profile, model and size, each with what it lacks. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from ..catalog.catalog import Catalog
from ..errors import ConfigError, problems_of
from ..machine.gpus import HostGpus
from ..memory.estimate import MemoryEstimate
from ..parallel import DATA_PARALLEL_SIZE, PIPELINE_PARALLEL_SIZE, parallel_of
from ..plan import TENSOR_PARALLEL_SIZE, Plan, Setting, Value
from ..request import Request
from . import memory_inputs
from .constraints import MEMORY
from .layers import resolve
from .select import Selection, select

SIZES = (16, 8, 4, 2, 1)
"""Tensor parallel sizes that are tried, the largest first: it leaves the fewest GPUs idle."""
_SHAPES = (TENSOR_PARALLEL_SIZE, DATA_PARALLEL_SIZE, PIPELINE_PARALLEL_SIZE)
"""Flags that say how GPUs are used; a request that sets one keeps it, and so does a profile but for the first."""


@dataclass(frozen=True)
class Candidate:
    """
    One profile with one model and size: the request for it, its plan, and what it lacks (nothing where it fits).

    Context and requests are those of the plan, or of the profile's own flags where no plan resolves.
    """

    profile: str
    request: Request
    context: int
    requests: int
    lacks: str = ""
    selection: Selection | None = None
    plan: Plan | None = None
    memory: MemoryEstimate | None = None

    @property
    def fits(self) -> bool:
        """Whether every request that the profile promises runs at full length at once."""
        return not self.lacks

    @property
    def held(self) -> int:
        """How many of its requests run at full length at once, of each replica; 0 where nothing starts."""
        if self.fits:
            return self.requests
        return self.memory.steady_state_requests if self.memory and self.memory.sized else 0

    @property
    def size(self) -> int:
        """The tensor parallel size; 0 where no plan resolves."""
        return self.selection.tensor_parallel_size if self.selection else 0

    @property
    def gpus(self) -> int:
        """How many GPUs it takes on all nodes; 0 where no plan resolves."""
        return parallel_of(self.plan.flags).gpus if self.plan else 0

    @property
    def replicas(self) -> int:
        """Data parallel replicas; each has as many requests."""
        return parallel_of(self.plan.flags).data if self.plan else 1


def of_profile(catalog: Catalog, request: Request, name: str, gpus: HostGpus, origin: str) -> Iterator[Candidate]:
    """Yield a candidate for each size of a profile, the largest first; the request's settings count."""
    for size in _sizes(catalog, request, name, gpus):
        yield _candidate(catalog, sized(with_profile(request, Setting(name, origin)), size, gpus), name, gpus)


def with_profile(request: Request, profile: Setting) -> Request:
    """Return the request with another profile."""
    return dataclasses.replace(request, choices={**request.choices, "profile": profile})


def sized(request: Request, size: int | None, gpus: HostGpus) -> Request:
    """Return the request with a tensor parallel size, as the environment would set it; None leaves it as it is."""
    if size is None:
        return request
    nodes = request.flag("nnodes")
    on = f" on each of {nodes.value} nodes" if nodes else ""
    setting = Setting(size, f"auto: {gpus.count} GPU{'s' * (gpus.count != 1)}{on}")
    environment = request.environment
    flags = {**environment.flags, TENSOR_PARALLEL_SIZE: setting}
    return dataclasses.replace(request, environment=dataclasses.replace(environment, flags=flags))


def of_all_nodes(request: Request, gpus: HostGpus) -> int | None:
    """Return the GPUs of all nodes, if each has as many as this host; None where this host was not read."""
    nodes = request.flag("nnodes")
    several = nodes.value if nodes and isinstance(nodes.value, int) else 1
    return None if gpus.count is None else gpus.count * max(1, several)


def _sizes(catalog: Catalog, request: Request, name: str, gpus: HostGpus) -> list[int | None]:
    """Return the sizes to try; only the plan's own (None) where it is set, or where GPUs are not counted."""
    profile = catalog.profile(name, "")
    fixed = any(request.flag(flag) for flag in _SHAPES) or any(flag in profile.flags() for flag in _SHAPES[1:])
    if gpus.count is None or fixed:
        return [None]
    allowed, count = profile.get("tensor_parallel_sizes") or SIZES, of_all_nodes(request, gpus) or 0
    return [size for size in SIZES if size in allowed and size <= count] or [None]


def _candidate(catalog: Catalog, request: Request, name: str, gpus: HostGpus) -> Candidate:
    flags = (profile := catalog.profile(name, "")).flags()
    requests = profile.get("requests") or flags.get("max-num-seqs", 0)
    nominal = Candidate(name, request, _context(flags.get("max-model-len")), requests)
    try:
        selection = select(catalog, request, lambda: gpus)
        selection = dataclasses.replace(selection, gpus=gpus.count)
        plan = resolve(selection, dataclasses.replace(request, skip=(*request.skip, *MEMORY)))
    except ConfigError as error:
        return dataclasses.replace(nominal, lacks=problems_of(error)[0].rstrip("."))
    memory = memory_inputs.estimate(selection, plan.flags)
    return Candidate(
        name,
        request,
        _context(plan.value("max-model-len")),
        memory.requests if memory else plan.value("max-num-seqs", 0),
        _shortage(memory) if memory else _uncounted(selection),
        selection,
        plan,
        memory,
    )


def _context(value: Value) -> int:
    """Return a context in tokens; 0 where vLLM decides it (`auto` and -1)."""
    return max(0, value) if isinstance(value, int) else 0


def _uncounted(selection: Selection) -> str:
    """Return why a plan without an estimate is not chosen; nothing where the hardware itself has no memory to count."""
    return f"the memory of {selection.model.name} is not counted here" if selection.hardware.get("memory_gib") else ""


def _shortage(memory: MemoryEstimate) -> str:
    """Return what is missing for all requests that a plan promises, or nothing."""
    if memory.kv_available_gib <= 0:
        return f"the weights take {memory.weights_gib:.1f} GiB per GPU and leave no room for a KV cache"
    if not memory.sized or memory.steady_state_requests >= memory.requests:
        return ""
    remaining = f"but only {memory.kv_available_gib:.1f} GiB remain"
    if not memory.admits:
        return f"one request needs {memory.request_gib:.1f} GiB of KV cache, {remaining}"
    return f"{memory.requests} requests need {memory.requests_gib:.1f} GiB of KV cache, {remaining}"
