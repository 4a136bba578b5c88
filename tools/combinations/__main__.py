"""
Write down which combinations of flags, scheme and GPU the installed vLLM starts with.

Runs where vLLM is installed (the CPU build will do). vLLM's own selection code answers, for GPUs that are stated; what
its CUDA build would find installed is answered as the image has it, and the file's head says so.

    python -m tools.combinations > entrypoint/vllm_schema/combinations-0.32.0.json
    python -m tools.combinations --check entrypoint/vllm_schema/combinations-0.32.0.json
"""

import gc
import json
import sys
from importlib import import_module
from typing import Any

from tools.describe_vllm import print_or_compare, render

from . import attention, experts, linear, quantization
from .platform import CAPABILITIES, COMPILED, PRESENT, stated

DEPTH = {"present": 1, "experts": 3, "attention": 2, "attention of v4.1": 2, "linear": 2, "quantization": 1}
"""Levels of the file that get a line per item."""


def table() -> dict[str, Any]:
    """Everything that is written down."""
    found: dict[str, dict[str, Any]] = {"attention": {}, "attention of v4.1": {}, "linear": {}}
    by_scheme: dict[str, dict[str, Any]] = {scheme: {} for scheme in experts.SCHEMES}
    for capability in CAPABILITIES:
        with stated(capability):
            for scheme, answers in by_scheme.items():
                answers[capability] = experts.of_scheme(scheme)
            found["attention"][capability] = attention.of_capability()
            found["attention of v4.1"][capability] = attention.of_v41()
            found["linear"][capability] = linear.of_capability()
            by_checkpoint = quantization.of_checkpoints()  # the same for every capability
    return {
        "about": "made by `python -m tools.combinations`: vLLM's own selection code, asked on a CPU for stated GPUs",
        "vllm": import_module("vllm").__version__.partition("+")[0],
        "present": PRESENT | dict.fromkeys([*COMPILED, "_HAS_DEEP_SELECT_C"], "vLLM's CUDA wheel, for CUDA 13"),
        "experts": folded({scheme: folded(answers) for scheme, answers in by_scheme.items()}),
        **{name: folded(answers) for name, answers in found.items()},
        "quantization": folded(by_checkpoint),
    }


def folded(answers: dict[str, Any]) -> dict[str, Any]:
    """Join the names that have the same answers, with a space between them."""
    names: dict[str, list[str]] = {}
    for name, answer in answers.items():
        names.setdefault(json.dumps(answer, sort_keys=True), []).append(name)
    return {" ".join(same): answers[same[0]] for same in names.values()}


def document(facts: dict[str, Any]) -> str:
    """The data file's text."""
    sections = (f'"{name}": {render(value, DEPTH.get(name, 0))}' for name, value in facts.items())
    return "{\n" + ",\n".join(sections) + "\n}\n"


def main(argv: list[str]) -> int:
    """Print the table, or compare it with a file; return the exit status."""
    text = "Write which combinations vLLM starts with, as JSON."
    return print_or_compare(argv, text, lambda: document(table()), "is what the installed vLLM answers")


if __name__ == "__main__":
    gc.disable()  # a fifth of the time: importing vLLM makes objects that stay
    sys.exit(main(sys.argv[1:]))
