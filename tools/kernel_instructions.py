"""
How many instructions a compiled kernel of Humming takes for each weight: of its main loop, without a GPU.

    python -m tools.kernel_instructions KERNEL.cubin …    # with NVIDIA's nvdisasm on PATH (pip: nvidia-cuda-nvdisasm)
    python -m tools.kernel_instructions KERNEL.sass …     # what `nvdisasm -c` printed

Humming keeps its kernels as `HUMMING_CACHE_DIR/*/kernel.cubin`. The main loop is the one with the most tensor-core
instructions for its length. One WGMMA takes 64 rows of weights from 128 threads, by 16 values in BF16 (HGMMA) and 32 in
FP8 (QGMMA): 8 and 16 weights of a thread. Warps that only load have a loop of their own, which is not counted.
"""

import argparse
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LABEL, TARGET = re.compile(r"(\.L_x_\d+):"), re.compile(r"\.L_x_\d+")
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:\{ )?(?:@!?U?P\w+\s+)?([A-Z]\w*)([^;]*);")
WEIGHTS = {"HGMMA": 8, "QGMMA": 16}
"""Weights of one thread that one instruction multiplies."""


@dataclass(frozen=True)
class Loop:
    """Instructions by name, and the weights of one thread that they take."""

    instructions: Counter[str]

    @property
    def weights(self) -> int:
        """Return how many weights of a thread a turn takes."""
        return sum(count * self.instructions[name] for name, count in WEIGHTS.items())

    @property
    def each(self) -> float:
        """Return the instructions for each weight."""
        return self.instructions.total() / self.weights


def main_loop(sass: str) -> Loop:
    """Return the loop with the most tensor-core instructions for its length; ValueError where none has any."""
    places: dict[str, int] = {}
    found: list[tuple[str, str]] = []
    for line in sass.splitlines():
        if label := LABEL.match(line.strip()):
            places[label[1]] = len(found)
        elif instruction := INSTRUCTION.search(line):
            found.append((instruction[1], instruction[2]))
    loops = []
    for end, (name, operands) in enumerate(found):
        target = TARGET.search(operands) if name == "BRA" else None
        begin = places.get(target[0]) if target else None
        if begin is not None and begin <= end:
            loops.append(Loop(Counter(name for name, _ in found[begin : end + 1])))
    if not any(loop.weights for loop in loops):
        raise ValueError("no loop with tensor-core instructions")
    return min((loop for loop in loops if loop.weights), key=lambda loop: loop.each)


def disassembled(path: Path) -> str:
    """Return the instructions of a kernel, by nvdisasm unless the file holds them already."""
    if path.suffix == ".sass":
        return path.read_text(encoding="utf-8")
    return subprocess.run(["nvdisasm", "-c", path], capture_output=True, text=True, check=True).stdout


def table(loops: Sequence[tuple[str, Loop]]) -> str:
    """Return one row for each kernel."""
    lines = ["| kernel | instructions for each weight | most of them, for each weight |", "|---|---|---|"]
    for name, loop in loops:
        most = (f"{which} {count / loop.weights:.2f}" for which, count in loop.instructions.most_common(5))
        lines.append(f"| {name} | {loop.each:.2f} | {', '.join(most)} |")
    return "\n".join(lines)


def main(words: Sequence[str]) -> int:
    """Print the table of the kernels that are named."""
    parser = argparse.ArgumentParser(description="Instructions for each weight in the main loop of Humming's kernels.")
    parser.add_argument(
        "kernels", nargs="+", type=Path, metavar="KERNEL", help="kernel.cubin, or what nvdisasm -c printed"
    )
    try:
        print(table([(str(path), main_loop(disassembled(path))) for path in parser.parse_args(words).kernels]))
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        need = " (pip: nvidia-cuda-nvdisasm)" if "nvdisasm" in str(error) else ""
        print(f"kernel_instructions: {error}{need}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
