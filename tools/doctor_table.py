"""
Write the tables of docs/reference/checks.md from the checks and the refusals themselves.

    python -m tools.doctor_table
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.doctor.registry import GROUPS
from dsv4_serve.entrypoint.problem import AnyCheck

PAGE = Path(__file__).resolve().parent.parent / "docs/reference/checks.md"
BEGIN, END = "<!-- made by tools/doctor_table.py -->\n", "<!-- end of what was made -->\n"
_VLLM = "https://github.com/vllm-project/vllm"
_SOURCE = f"{_VLLM}/blob/v0.32.0/vllm"


@dataclass(frozen=True)
class Refusal:
    """What is refused while the request is read: symptom without it, a link, and the known failures that it covers."""

    symptom: str
    link: str
    failures: tuple[int, ...] = ()


RULES = {
    "dspark-only": Refusal("A DSpark drafter under mtp.*, and no MTP head", f"{_VLLM}/issues/52165", (60,)),
    "marlin-linear": Refusal(
        "b_scales dim 1 = 32 is not size_n = 1536; fp8 einsum weight rows must be divisible by out_rank",
        f"{_VLLM}/pull/43722",
        (7, 23),
    ),
    "cutlass-linear": Refusal(
        "Assertion error (csrc/utils/layout.hpp:46): t.dim() == N, and: Worker proc died unexpectedly",
        "docs/results/speed.md",
    ),
    "no-deep-gemm": Refusal(
        "fp8 einsum weight rows must be divisible by out_rank=1024, got 256", f"{_VLLM}/pull/43722", (23,)
    ),
    "graph-memory": Refusal(
        "torch.OutOfMemoryError while CUDA graphs are captured", f"{_SOURCE}/v1/worker/gpu_worker.py", (41,)
    ),
    "graph-sizes": Refusal(
        "No valid cudagraph sizes after rounding to multiple of 2", f"{_SOURCE}/config/compilation.py", (30,)
    ),
    "w4a16-moe-backend": Refusal(
        "No INT4 kernel in the backend that was asked for",
        f"{_SOURCE}/model_executor/layers/fused_moe/oracle/int_wna16.py",
    ),
    "w4a16-marlin-sm120": Refusal(
        "Tokens of other scripts in the answers at concurrency 2 and more, then an illegal memory access",
        f"{_VLLM}/pull/43730",
        (28,),
    ),
    "nvfp4-mega-moe": Refusal(
        "KeyError: 'layers.0.ffn.experts.w13_input_scale'", f"{_SOURCE}/models/deepseek_v4/nvidia/model.py", (20,)
    ),
    "swiglu-clamp": Refusal(
        "Model sets swiglu_limit=10.0, but ... does not apply the SwiGLU clamp",
        f"{_SOURCE}/model_executor/layers/fused_moe/oracle/nvfp4.py",
        (22,),
    ),
    "pro-hardware": Refusal(
        "Weights that no other host holds", "https://huggingface.co/canada-quant/DeepSeek-V4-Pro-NVFP4-FP8-MTP"
    ),
}
FENCES = {
    "profile-model": "A profile tuned for other models",
    "profile-hardware": "A profile tuned for other hardware",
    "tensor-parallel-size": "no decode kernel for this shape: heads a GPU that attention kernels do not have",
}
READING = {
    "a flag given twice": Refusal(
        "Of two --served-model-name only the last is served", f"{_SOURCE}/entrypoints/launchers/cli_args.py", (45,)
    ),
    "a word that is no flag": Refusal(
        "unrecognized arguments: serve", f"{_VLLM}/blob/v0.32.0/docker/Dockerfile", (50,)
    ),
}
"""Mistakes that are answered before there is a plan; they cannot be skipped."""
# Heads a GPU that kernels do not have; tensors named by another quantizer (GPTQ, AutoRound) in place of the layout's.
ALSO = {"tensor-parallel-size": (58,), "target-model-complete": (6,)}


def covered() -> dict[int, set[str]]:
    """Return what is caught before start: the names of checks and refusals by the number of a known failure."""
    names: dict[int, set[str]] = {}
    checks = [(check.name, check.failures) for checks in GROUPS.values() for check in checks]
    refused = [(name, refusal.failures) for name, refusal in (RULES | READING).items()]
    for name, numbers in [*checks, *refused, *ALSO.items()]:
        for number in numbers:
            names.setdefault(number, set()).add(name)
    return names


def rules() -> dict[str, tuple[str, str]]:
    """Return the reason and the remedy of every rule in the shipped profile files, by its name."""
    catalog = Catalog([])
    files = [catalog.root(), *catalog.every_model(), *catalog.every_hardware()]
    files += [catalog.profile(name, "") for name in catalog.names("profile")]
    return {rule.name: (rule.because, rule.instead) for file in files for rule in file.own.refuse}


def tables() -> str:
    """Return every table."""
    parts = []
    for title, checks in GROUPS.items():
        rows = (
            (f"`{check.name}`", check.looks_for, _linked(check.symptom, check.link), remedy(check), check.tried)
            for check in checks
        )
        parts.append(_table(title, ("name", "what it looks for", "symptom without it", "remedy", "tried"), rows))
    named = rules()
    refused = (
        (f"`{name}`", named[name][1], _linked(refusal.symptom, refusal.link), named[name][0])
        for name, refusal in RULES.items()
    )
    parts.append(_table("Refused by a profile file", ("name", "instead", "symptom without it", "why"), refused))
    fences = ((f"`{name}`", symptom) for name, symptom in FENCES.items())
    parts.append(_table("Refused by what a profile file says it is for", ("name", "symptom without it"), fences))
    read = ((name, _linked(refusal.symptom, refusal.link)) for name, refusal in READING.items())
    parts.append(_table("Refused while the request is read", ("what", "symptom without it"), read))
    return "\n".join(parts)


def remedy(check: AnyCheck) -> str:
    """Return every fix that a check gives, with … for what is filled in."""
    return "; or ".join(re.sub(r"\{.*?\}", "…", fix) for fix in check.remedies)


def page(text: str) -> str:
    """Return the page with its tables made anew."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def _table(title: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    return "\n".join([f"### {title}", "", *_rows(tuple(head), rows)]) + "\n"


def _rows(head: tuple[str, ...], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    for row in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _linked(symptom: str, link: str) -> str:
    text = re.sub(r"([\[\]])", r"\\\1", symptom)
    return f"[{text}]({link if '//' in link else '../' + link.removeprefix('docs/')})"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(PAGE)
