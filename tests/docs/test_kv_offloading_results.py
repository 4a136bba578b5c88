"""What docs/how-to/kv-offloading.md says was measured is in its result file."""

from __future__ import annotations

import json
import re
from pathlib import Path

from qualification.gpu.returning import TURN, medians
from tests.docs.test_result_tables import table

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/how-to/kv-offloading.md").read_text(encoding="utf-8")
NAMES = re.findall(r"\(\.\./\.\./(qualification/results/bench/[\w-]+\.json)\)", PAGE)
RESULTS = [json.loads((ROOT / name).read_text(encoding="utf-8")) for name in NAMES]
FOUND = {one["tokens"]: one["turns"] for result in RESULTS for one in result["returning"]}
PROSE = " ".join(PAGE.split())
LONGEST = 500_000


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
    prose = PROSE
    late = {round(1000 * (medians(FOUND[at])["host"] - medians(FOUND[at])["gpu"])) for at in (16384, 131072)}
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
    again = [f"| {medians(FOUND[tokens])['read']:.2f} s (" for tokens in FOUND]
    assert [row in prose for row in again] == [True, True, False]
    assert f"| {medians(FOUND[LONGEST])['read']:.2f} s for 500,000 (above) |" in prose


def test_the_longest_conversations_are_those_of_their_result() -> None:
    turns = FOUND[LONGEST]
    [host] = [turn for turn in turns if turn["host"]]
    first, second = (turn["seconds"] for turn in turns if turn["gpu"])
    told = f"the one restored turn took {host['seconds']:.3f} s and the two in the GPU's cache {first:.3f} and {second:.3f}"
    assert told in PROSE
    assert f"Of its {LONGEST + TURN:,} tokens {host['host']:,.0f} were restored" in PROSE
    at = medians(turns)
    short = f"{at['host']:.2f} s instead of {at['read']:.1f}"
    assert f"to 500,000 after {short}. Known" in PROSE
    changes = " ".join((ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split())
    assert f"one of 500,000 after {short} (one H200" in changes
    profile = " ".join((ROOT / "profiles/524k-offload.toml").read_text(encoding="utf-8").replace("\n# ", " ").split())
    assert f"500,000 tokens came back after {at['host']:.2f} s, and took {at['read']:.1f} s to read" in profile


def test_the_copies_are_those_of_the_counters() -> None:
    def copy(turn: dict[str, float], size: str, seconds: str, digits: int) -> tuple[str, str, str]:
        many, took = turn[size], turn[seconds]
        return f"{many / 1e9:.{digits}f} GB", f"{1000 * took:.1f} ms", f"({many / took / 1e9:.0f} GB/s)"

    turns = FOUND[LONGEST]
    [(size, took, rate)] = {copy(turn, "stored", "store_seconds", 2) for turn in turns if turn["turn"] == "read"}
    assert f"{size} to host memory in {took} {rate} for each conversation" in PROSE
    [(size, took, rate)] = {copy(turn, "restored", "restore_seconds", 3) for turn in turns if turn["restored"]}
    assert f"{size} back in {took} {rate}" in PROSE


def test_both_sessions_were_as_the_page_says() -> None:
    for result, cores, tables in zip(RESULTS, (16, 64), (False, True), strict=True):
        assert result["replica"]["machine"]["cores"] == cores
        assert f"{cores} cores)" in PROSE
        assert ("VLLM_TUNED_CONFIG_FOLDER" in result["replica"]["env"]) == tables
        assert result["replica"]["settings"]["kv-offloading-size"]["value"] == 48
        assert result["replica"]["machine"]["driver"] == "580.159.04"


def test_memory_has_the_bytes_of_the_results() -> None:
    memory = " ".join((ROOT / "docs/explanation/memory.md").read_text(encoding="utf-8").split())
    stored = int(max(turn["stored"] for turn in FOUND[LONGEST]))
    assert f"{stored // 1_002_240:,} blocks ({stored:,} B) for [one of 500,000]" in memory
    assert stored % 1_002_240 == 0
    one, two = (
        json.loads((ROOT / f"qualification/results/w4a16-offload-h200-tp{tp}-vllm0.32.0.json").read_text())["again"]
        for tp in (1, 2)
    )
    assert one["stored"] == two["stored"]
    assert two["restored"] == 2 * one["restored"]
    assert f"as at TP=1, {two['stored']:,.0f}, and twice as many copied back" in memory
    assert f"{two['restored']:,.0f} in place of {one['restored']:,.0f}: both ranks" in memory


def test_known_answers_are_of_the_sizes_that_the_page_names() -> None:
    results = (ROOT / "qualification/results").glob("*-offload-h200-tp*.json")
    sizes = {json.loads(path.read_text(encoding="utf-8"))["tp"] for path in results}
    assert sizes == {1, 2}
    assert "on one H200 and on two (TP=2), with small checkpoints" in PROSE
