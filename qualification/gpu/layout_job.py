"""
What one job of run_layouts.py is: its name, and the flags and variables that its server is started with.

A job is `[stock/]LAYOUT[:DRAFTER][@TOKENS][+ep][+offload][+shared][+bf16]`: draft tokens a step (1 for an MTP head, 5 for DSpark),
expert parallel, and the inputs of Humming's experts where they are not as planned (`+bf16`; `+fp8`, in groups of 128;
`+fp8token`, with one scale a token). With `+offload` KV caches are kept in host memory too; with `+shared` prompts that
share a beginning are asked as well, and each answer says how much of its prompt the cache had.
"""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from dsv4_serve.demo.deepseek_v4 import LAYOUTS, MTP
from dsv4_serve.entrypoint.qualify.small import SKIPPED
from qualification.gpu import fp8_experts

MODELS = {"native": "flash", "bf16": "flash", "pro": "pro-nvfp4"}
"""The product's name for a layout, where it is another one."""
PRO = ("pro-hardware", "tensor-parallel-size", "model-files")
"""Refusals that hold for the full-size V4-Pro only."""
TOKENS = {"mtp": 1, "dspark": 5}
JOB = re.compile(r"(stock/)?([\w-]+)(?::(\w+))?(?:@(\d))?(\+ep)?(\+offload)?(\+shared)?(?:\+(bf16|fp8|fp8token))?")
FORM = "[stock/]LAYOUT[:DRAFTER][@TOKENS][+ep][+offload][+shared][+bf16]"
HOST_GIB = 2
"""Host memory for KV caches; the GPU's cache has as much (served.FLAGS)."""


@dataclass(frozen=True)
class Job:
    layout: str
    mtp: str
    stock: bool
    tp: int
    tokens: int = 1
    experts: bool = False
    offload: bool = False
    shared: bool = False
    inputs: str | None = None

    @property
    def method(self) -> str:
        return LAYOUTS[self.layout].drafter

    @property
    def name(self) -> str:
        parts = [
            self.layout,
            "stock" if self.stock else "",
            "" if self.mtp == "good" else f"{self.method}-{self.mtp}",
            "" if self.tokens == 1 else f"k{self.tokens}",
            "ep" if self.experts else "",
            "offload" if self.offload else "",
            "shared" if self.shared else "",
            self.inputs or "",
        ]
        return "-".join(part for part in parts if part)

    @property
    def flags(self) -> list[str]:
        speculative = {"method": self.method, "num_speculative_tokens": self.tokens}
        experts = ["--enable-expert-parallel"] if self.experts else []
        host = ["--kv-offloading-size", str(HOST_GIB)] if self.offload else []
        details = ["--enable-prompt-tokens-details"] if self.shared else []
        return ["--speculative-config", json.dumps(speculative), *experts, *host, *details]

    @property
    def variables(self) -> dict[str, str]:
        """Variables of the server; with offloading also the one by which vLLM lets its prefix cache be emptied."""
        return fp8_experts.variables(self.inputs) | ({"VLLM_SERVER_DEV_MODE": "1"} if self.offload else {})

    @property
    def skipped(self) -> list[str]:
        """Refusals that a job exists to go past: more tokens than the drafter's block, and a drafter that is not there."""
        past = {"dspark-block": self.method == "dspark" and self.tokens > 5, "drafter-method": self.mtp == "removed"}
        return [name for name, applies in past.items() if applies]


def parse_job(text: str, tp: int) -> Job:
    """Raises ValueError for anything but FORM."""
    match = JOB.fullmatch(text)
    if not match or match[2] not in LAYOUTS or (match[3] or "good") not in MTP:
        names = f"{', '.join(LAYOUTS)} and {', '.join(MTP)}"
        raise ValueError(f"job {text!r}: expected {FORM}, with {names}")
    tokens = int(match[4] or TOKENS[LAYOUTS[match[2]].drafter])
    given = (bool(match[5]), bool(match[6]), bool(match[7]))
    return Job(match[2], match[3] or "good", bool(match[1]), tp, tokens, *given, match[8])


def command(template: str, job: Job, model: Path) -> list[str]:
    """The argv of a template; the product is also told which refusals do not hold for a small checkpoint."""
    name = MODELS.get(job.layout, job.layout)
    argv = [word.replace("{model}", str(model)).replace("{name}", name) for word in shlex.split(template)]
    skipped = [*SKIPPED, *(PRO if job.layout == "pro" else ()), *job.skipped] if "{name}" in template else []
    return [*argv, *job.flags, *(word for refusal in skipped for word in ("--skip", refusal))]
