"""
Compute what the random checkpoints answer, in float64, and keep it.

    python -m tools.numerics [--size tiny]

OPENBLAS_NUM_THREADS=1 is faster on a busy machine. 20 seconds of one CPU core for `tiny`.
"""

import argparse
from pathlib import Path

from dsv4_serve.demo.numerics import answers, golden
from dsv4_serve.demo.numerics.sizes import SIZES

FOLDER = Path(golden.__file__).parent


def main() -> None:
    """Compute every prompt's tables and write the file."""
    parser = argparse.ArgumentParser(description="Compute what the random checkpoints answer.")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    options = parser.parse_args()
    computed = answers.golden(options.size)
    with (FOLDER / f"golden-{options.size}.npz").open("wb") as file:
        computed.save(file)


if __name__ == "__main__":
    main()
