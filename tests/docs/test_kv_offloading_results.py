"""What docs/how-to/kv-offloading.md says was measured is in its result file."""

from __future__ import annotations

import json
import re
from pathlib import Path

from qualification.gpu.returning import medians
from tests.docs.test_result_tables import table

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/how-to/kv-offloading.md").read_text(encoding="utf-8")
[NAME] = re.findall(r"\(\.\./\.\./(qualification/results/bench/[\w-]+\.json)\)", PAGE)
FOUND = {one["tokens"]: one["turns"] for one in json.loads((ROOT / NAME).read_text(encoding="utf-8"))["returning"]}


def test_the_table_has_the_medians_of_the_result() -> None:
    expected = []
    for tokens, turns in sorted(FOUND.items()):
        at = medians(turns)
        host, gpu = (sum(turn[name] > 0 for turn in turns) for name in ("host", "gpu"))
        seconds = [f"{at[source]:.3f}" for source in ("read", "host", "gpu")]
        ratio = f"**{at['read'] / at['host']:.1f}**"
        expected.append([f"{tokens:,} tokens", *seconds, ratio, f"{len(turns) - host - gpu}; {host}; {gpu}"])
    assert table(PAGE, "| history | read | from host memory") == expected


def test_the_text_has_the_figures_of_the_result() -> None:
    prose = " ".join(PAGE.split())
    late = {round(1000 * (medians(turns)["host"] - medians(turns)["gpu"])) for turns in FOUND.values()}
    assert late == {6}
    assert "the median first token comes 6 ms later, behind 131,072 tokens and behind 16,384" in prose
    host, gpu = ([turn["seconds"] for turn in FOUND[131072] if turn[source]] for source in ("host", "gpu"))
    single = f"({min(host):.2f} to {max(host):.2f} s restored and {min(gpu):.2f} to {max(gpu):.2f} s in the GPU's cache"
    assert single in prose
    reads = [turn["stored"] for turn in FOUND[131072] if turn["turn"] == "read"]
    backs = [turn["stored"] for turn in FOUND[131072] if turn["turn"] == "back"]
    assert (
        f"took {max(reads) / 1e6:.0f} MB of host memory, and each later turn of 256 tokens {max(backs) / 1e6:.0f} MB"
        in prose
    )
    assert len({*reads}) == len({*backs[:-1]}) == 1
    at = medians(FOUND[131072])
    assert f"comes after [{at['host']:.2f} s instead of {at['read']:.1f}](" in prose
    again = [f"| {medians(FOUND[tokens])['read']:.2f} s (" for tokens in (16384, 131072)]
    assert [row in prose for row in again] == [True, True]
