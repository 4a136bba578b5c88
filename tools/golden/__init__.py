"""
What every command answers, on one page: `python -m tools.golden` prints it, `--write` keeps it as RECORD.

The page is made without a GPU, a network, a container engine or vLLM, and is the same on every machine.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "tests/golden/record.txt"
