"""What a plan requires of its checkpoint, and of vLLM's patches."""

from __future__ import annotations

from dataclasses import dataclass

from ..catalog.catalog import ProfileFile
from ..catalog.schema import Model
from ..plan import Plan


@dataclass(frozen=True)
class CheckpointRequirements:
    """The model's layout, and the settings of the plan that a checkpoint has to support."""

    model: str = ""
    architecture: str = ""
    scheme: str = ""
    drafter_scheme: str = ""
    hardware: str = ""
    tensor_parallel_size: int = 1
    expert_parallel: bool = False
    method: str = ""
    """How tokens are drafted (`mtp`, `dspark`, ...); empty without speculation."""
    draft_tokens: int = 0
    patches: frozenset[str] | None = None
    """Names of the patches that the installed vLLM has; None where that is not known."""

    @property
    def drafts_with_mtp(self) -> bool:
        """Whether drafting uses the checkpoint's MTP layers."""
        return self.method in ("mtp", "deepseek_mtp")

    def lacks(self, patch: str) -> bool:
        """Tell whether the installed vLLM is known to lack a patch."""
        return self.patches is not None and patch not in self.patches


def checkpoint_requirements(
    plan: Plan, model: ProfileFile[Model], patches: frozenset[str] | None = None
) -> CheckpointRequirements:
    """Return what this plan, made with this model, requires of a checkpoint."""
    tokens = plan.draft_tokens
    return CheckpointRequirements(
        model=model.name,
        architecture=model.get("architecture"),
        scheme=model.get("scheme"),
        drafter_scheme=model.get("drafter").scheme,
        hardware=str(plan.choices["hardware"].value) if "hardware" in plan.choices else "",
        tensor_parallel_size=plan.tensor_parallel_size,
        expert_parallel=plan.value("enable-expert-parallel", False),
        method=plan.value("speculative-config.method", "mtp") if tokens else "",
        draft_tokens=tokens,
        patches=patches,
    )
