"""
How far the scales of MXFP4 experts lie apart, read from a checkpoint: which weights FP8 activations would round.

    python -m tools.mxfp4_scales FOLDER

For FP8 activations Humming turns a weight into E4M3 before it multiplies, and adds the scale to its exponent. That is
exact for scales down to 2^-11 of the largest in the same expert's `w13` or `w2`. A weight with a smaller one is rounded
to what E2M1 has at 2^-11 (`process_fused_e8m0_scale` of humming-kernels 0.1.17; FlashInfer's CUTLASS kernels do the
same). Whole experts are counted: a GPU that holds a part of one rounds fewer weights, and groups of zeros count though
nothing is lost. Only scales are read, a seventeenth of the experts' bytes.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsv4_serve.entrypoint.checkpoint import safetensors

SCALE = re.compile(r"(.*\.experts\.\d+)\.w([123])\.(?:scale|weight_scale)")
KEPT = 11
"""Powers of two below an expert's largest scale that E4M3 has room for."""
BYTES = {"F8_E8M0", "U8"}


def scales(folder: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield each expert's matrix and its scale bytes, `w1` and `w3` as one."""
    matrices: dict[str, list[tuple[Path, int, int]]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        size, start = safetensors.raw(path)
        for name, tensor in safetensors.shard(path.name, size, start).tensors.items():
            if (match := SCALE.fullmatch(name)) and tensor["dtype"] in BYTES:
                begin, end = (len(start) + offset for offset in tensor["data_offsets"])
                matrices.setdefault(f"{match[1]}.w{'2' if match[2] == '2' else '13'}", []).append((path, begin, end))
    for name, places in sorted(matrices.items()):
        read = [np.memmap(path, np.uint8, "r", begin, (end - begin,)) for path, begin, end in places]
        yield name, np.concatenate(read)


def below(found: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the powers of two between the largest and the smallest scale, and how many scales are too small."""
    distance = int(found.max()) - found.astype(int)
    return int(distance.max()), int((distance > KEPT).sum())


def main() -> int:
    """Print the widest experts and the sum; 1 where the folder has no such scales."""
    parser = argparse.ArgumentParser(description="How far the scales of MXFP4 experts lie apart.")
    parser.add_argument("folder", type=Path)
    rows = [(name, *below(found), found.size) for name, found in scales(parser.parse_args().folder)]
    if not rows:
        print("no MXFP4 experts: no scales of one byte named *.experts.N.w1.scale, w2 or w3", file=sys.stderr)
        return 1
    print("| matrix | scales | powers of two between them | too small, rounded |\n|---|---|---|---|")
    for name, span, small, size in sorted(rows, key=lambda row: (-row[2], -row[1]))[:10]:
        print(f"| {name} | {size:,} | {span} | {small:,} |")
    small, size = sum(row[2] for row in rows), sum(row[3] for row in rows)
    print(f"| all {len(rows):,} | {size:,} | {max(row[1] for row in rows)} at most | {small:,}, {small / size:.4%} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
