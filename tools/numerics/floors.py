"""
Keep what rounding alone gives each expert, from a run of the bf16 layout on CPU.

    python -m tools.numerics.floors FOLDER/bf16.npz

FOLDER is that of `python -m tools.numerics.measure`. It prints the other floors, which stand in compare.py.
"""

import argparse
from pathlib import Path

import numpy as np

from dsv4_serve.demo.numerics import compare, golden
from dsv4_serve.demo.numerics.sizes import SIZES

PROMPT = "long"
"""The one with enough positions for each expert."""


def main() -> None:
    """Write floors-tiny.npz."""
    parser = argparse.ArgumentParser(description="Keep what rounding alone gives each expert.")
    parser.add_argument("answers", type=Path)
    got, shipped, d = dict(np.load(parser.parse_args().answers)), golden.load(), SIZES["tiny"]
    apart, part = compare.distances(shipped.tables[PROMPT], got[PROMPT])
    medians = compare.experts(apart, part.routes, (d.layers, d.experts)).astype(np.float32)
    with (Path(golden.__file__).parent / "floors-tiny.npz").open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{PROMPT: medians})
    for name, value in compare.compare(shipped, got, {}).figures.items():
        print(f"{name}: {value:.3f}")


if __name__ == "__main__":
    main()
