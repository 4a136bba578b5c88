"""
Make a result file of each line that run_layouts.py recorded.

    python -m qualification.gpu.unfold results-tp1.jsonl results-tp2.jsonl --out qualification/results
"""

import argparse
import json
from pathlib import Path


def unfold(record: Path, out: Path) -> list[Path]:
    """Write the results of a record; a line that was cut off ends it, and a skipped job is no result."""
    written = []
    for line in record.read_text(encoding="utf-8").splitlines():
        try:
            result = json.loads(line)
        except ValueError:
            break
        name = Path(result.pop("file")).name
        if result["result"] != "skipped":
            (out / name).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
            written.append(out / name)
    return written


def main() -> None:
    """Print what was written."""
    parser = argparse.ArgumentParser(description="Result files of what run_layouts.py recorded.")
    parser.add_argument("records", type=Path, nargs="+", metavar="RECORD.jsonl")
    parser.add_argument("--out", type=Path, default=Path("qualification/results"))
    options = parser.parse_args()
    for record in options.records:
        print(*unfold(record, options.out), sep="\n")


if __name__ == "__main__":
    main()
