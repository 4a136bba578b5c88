"""What a plan requires of the host: the few settings that the checks of host, GPUs and topology read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import served_plan
from ..kv_offloading import Offloading, offloading_of, regions_of
from ..listen import health_address
from ..parallel import parallel_of
from ..plan import Plan
from .ports import RequiredPort

if TYPE_CHECKING:  # the host can be read without pydantic
    from ..catalog.catalog import ProfileFile
    from ..catalog.schema import Hardware


@dataclass(frozen=True)
class HostRequirements:
    """Settings of a plan that a host has to provide for."""

    gpus: int = 2
    """GPUs of all data parallel ranks on this host; 0 on a CPU."""
    group: int = 2
    """GPUs of one data parallel rank on this host."""
    utilization: float = 0.9
    """The share of a GPU's memory that vLLM may use, from 0 to 1."""
    hardware: str = ""
    """The name of the hardware file, such as `h200`."""
    capability: str = ""
    """The compute capability, such as `9.0`."""
    memory_gib: float | None = None
    """The memory of one GPU that the plan counts with."""
    interconnect: str = ""
    """As in the hardware file: `nvlink`, `pcie` or `none`."""
    custom_all_reduce: bool = True
    load_format: str = "auto"
    api_port: RequiredPort | None = None
    """vLLM's; None on a node without an API server."""
    health_port: RequiredPort | None = None
    """The health server's; None where no plan is served."""
    listening: bool = False
    """Whether the health server is this process's and listens already."""
    open_address: str = ""
    """Where the API is open to other machines without a key."""
    env: Mapping[str, str] = field(default_factory=dict)
    deepseek_on_cpu: bool = False
    traces: bool = False
    """Whether vLLM sends traces."""
    offloading_gib: float = 0.0
    """Shared memory for KV caches that vLLM's own offloading keeps in host memory."""
    offloading_folders: tuple[str, ...] = ()
    """Folders of files that it keeps behind host memory."""
    offloading_packages: tuple[str, ...] = ()
    """Modules that its other tiers import."""
    offloading_regions: tuple[str, ...] = ()
    """Its files in shared memory, where the plan names them."""

    @property
    def nvlink(self) -> bool:
        """Whether NCCL may use NVLink, which NCCL_P2P_DISABLE disables too."""
        return self.env.get("NCCL_P2P_DISABLE", "0") == "0"

    @property
    def peer_access(self) -> bool:
        """Whether NCCL may use peer access over PCIe."""
        return self.nvlink and self.env.get("NCCL_P2P_LEVEL", "").upper() not in ("NVL", "LOC", "0")


def host_requirements(
    plan: Plan, hardware: ProfileFile[Hardware], architecture: str, environ: Mapping[str, str]
) -> HostRequirements:
    """Return what a plan requires; `architecture` is the model's, `environ` has the variables that vLLM starts with."""

    interconnect, shape = hardware.get("interconnect"), parallel_of(plan.flags)
    offloading = offloading_of(plan.flags) if shape.node_replicas else Offloading()
    on_cpu = interconnect == "none"
    utilization = plan.value("gpu-memory-utilization", 0.92)  # vLLM 0.32.0's default
    host = str(plan.value("host", "0.0.0.0"))  # noqa: S104  vLLM's own default: every address
    health_host, health_port = health_address(environ)
    return HostRequirements(
        gpus=0 if on_cpu else shape.node_gpus,
        group=0 if on_cpu else shape.group_gpus,
        utilization=utilization if isinstance(utilization, float) else 1.0,
        hardware=hardware.name,
        capability=hardware.get("compute_capability"),
        memory_gib=hardware.get("memory_gib"),
        interconnect=interconnect,
        custom_all_reduce=not plan.value("disable-custom-all-reduce", otherwise=False),
        load_format=str(plan.value("load-format", "auto")),
        api_port=None if shape.headless else RequiredPort(host, served_plan.port(plan), "--host", "--port (PORT)"),
        health_port=RequiredPort(health_host, health_port, "DSV4_HEALTH_HOST", "DSV4_HEALTH_PORT"),
        open_address=served_plan.open_address(plan),
        env={**environ, **plan.environment()},
        deepseek_on_cpu=on_cpu and architecture.startswith("deepseek-v4"),
        traces=bool(plan.value("otlp-traces-endpoint")),
        offloading_gib=offloading.gib * shape.node_replicas,
        offloading_folders=offloading.folders,
        offloading_packages=offloading.packages,
        offloading_regions=regions_of(plan.flags),
    )
