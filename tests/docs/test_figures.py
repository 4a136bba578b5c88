"""
No figure without hardware, vLLM version, date, and a file or a card that it comes from.

What is read: README.md, the sections of docs/results, and every comment and `[[measured]]` entry of the profile files.
A figure is a number with a unit, or a number in a column whose head has one.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.each import each

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROFILES = sorted((ROOT / "profiles").rglob("*.toml"))
RESULTS = sorted((ROOT / "docs/results").glob("*.md"))

SPEED = re.compile(r"\d ?(?:(?:output )?tok(?:ens)?/s|output tok|tokens a second|ms|s|%)(?![\w/])")
SIZE = re.compile(r"\d ?(?:GiB|GB|MiB|MB)\b")
HEAD = re.compile(r"tok/s|\bms\b|seconds|\bs\b|TPOT|TTFT|GiB|latency")
HARDWARE = re.compile(r"\d+ (?:of \d+ )?[x×] |H200|B300|RTX PRO 6000|Max-Q|\bcores?\b|GPU's share")
VERSION = re.compile(
    r"vLLM (?:\w+ )?\(?0\.\d+\.\d+|vLLM forks?\b|fork of vLLM|vLLM main|vLLM nightly|HAProxy \d|vllm-router \d"
)
DATE = re.compile(r"20\d\d-\d\d")
UNMEASURED = re.compile(r"unmeasured|computed|third-party|\bcard\b")


def missing(text: str, *, source: bool = True) -> list[str]:
    """Return which of the conditions a text does not name."""
    found = {"hardware": HARDWARE.search(text), "vLLM version": VERSION.search(text), "date": DATE.search(text)}
    names = [name for name, match in found.items() if not match]
    return names + (["source"] if source and not has_source(text) else [])


def has_source(text: str) -> bool:
    """Tell whether a text links to a page of the web, or names a file of results or the program that measured."""
    paths = re.findall(r"\b((?:qualification|tests|tools|docs)/[\w./*-]+\w/?)", text)
    return bool(re.search(r"https://", text)) or any(next(ROOT.glob(path.rstrip("/")), None) for path in paths)


def rows(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """Yield head and cells of every row of every table."""
    for table in re.findall(r"(?:^\|.*\n)+", text + "\n", re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()]
        for cells in lines[2:]:
            yield lines[0], cells


def without_tables(text: str) -> str:
    return re.sub(r"^\|.*\n?", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), flags=re.MULTILINE)


# The README


def labels() -> dict[str, str]:
    """Return the sources of the README's table, by the label that a figure has."""
    return dict(re.findall(r"^\[(\w+)\]: (\S+)$", README, re.MULTILINE))


def unlabelled(cell: str) -> list[str]:
    """Return the parts of a cell of measured figures that have a number and no source."""
    return [
        part
        for part in cell.split(";")
        if re.search(r"\d", part) and not set(re.findall(r"\[(\w+)\]", part)) & {*labels()}
    ]


def test_every_figure_of_the_profile_table_has_a_source_whose_conditions_stand_beneath() -> None:
    measured = [cells[-1] for head, cells in rows(README) if "measured" in head[-1]]
    assert len(measured) == 10
    for cell in measured:
        assert cell == "unmeasured" or re.search(r"\d", cell)
        assert unlabelled(cell) == []
    named = {label for cell in measured for label in re.findall(r"\[(\w+)\]", cell)}
    conditions = {cells[0].strip("[]"): " ".join(cells[1:]) for head, cells in rows(README) if head[0] == "source"}
    assert named == set(conditions) == set(labels())
    for label, text in conditions.items():
        assert missing(text, source=False) == [], label
        target = labels()[label]
        assert target.startswith("https://") or (ROOT / target).exists()


def test_every_other_figure_of_the_readme_has_its_conditions_in_the_same_paragraph() -> None:
    others = [" | ".join(cells) for head, cells in rows(README) if "measured" not in head[-1] and head[0] != "source"]
    for paragraph in [*without_tables(README).split("\n\n"), *others]:
        if SPEED.search(paragraph):
            assert missing(paragraph) == [], paragraph
        if SIZE.search(paragraph):
            assert DATE.search(paragraph) or re.search(r"\]\(\S+\)", paragraph), paragraph


@pytest.mark.parametrize("cell", ["95 for one", "[w4a16]; 95 for one", "95 for one [none]"])
def test_a_figure_without_a_source_is_found(cell: str) -> None:
    assert unlabelled(cell)


# Pages of results


@dataclass
class Section:
    """A heading with what stands beneath it, and the conditions that hold there from elsewhere on the page."""

    heading: str
    text: str
    inherited: str


def sections(page: Path) -> Iterator[Section]:
    """Yield the sections of a page. Each inherits from those it is a part of, and from the last table of conditions."""
    parts = re.split(r"^(#+ .*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    above: dict[int, str] = {}
    table = ""
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        level = len(heading.split()[0])
        above = {depth: own for depth, own in above.items() if depth < level}
        tables = re.findall(r"(?:^\| condition \|.*\n)(?:^\|.*\n)+", text, re.MULTILINE)
        yield Section(heading, text, "\n".join([*(own for depth, own in above.items() if depth > 1), table]))
        above[level] = text
        table = tables[-1] if tables else table


def has_figures(text: str) -> bool:
    """Tell whether a section measures something: a figure in a sentence or a cell, or a number under a head with a unit."""
    if SPEED.search(re.sub(r"`[^`]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))):
        return True
    return any(
        HEAD.search(name) and re.search(r"\d", cell)
        for head, cells in rows(text)
        for name, cell in zip(head, cells, strict=False)
    )


MEASURED = [
    (f"{page.stem}: {section.heading.lstrip('# ')}", section)
    for page in RESULTS
    for section in sections(page)
    if has_figures(section.text) and "on paper" not in section.heading
]


@each("name, section", MEASURED, ids=lambda case: case[0])
def test_a_section_with_figures_names_their_conditions(name: str, section: Section) -> None:
    assert missing(section.text + section.inherited) == []


def test_speed_is_never_told_beside_a_card_without_acceptance_and_tpot() -> None:
    """A ratio to a card stands in a section that has both, and the card's bad conditions."""
    page = ROOT / "docs/results/speed.md"
    beside = [section.text for section in sections(page) if "/ the card" in section.text]
    assert beside
    for text in beside:
        for word in ("TPOT", "accepted", "real weights", "first token"):
            assert word in text


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("211 tok/s on 2 x H200, vLLM 0.32.0, 2026-11-22, https://x", []),
        ("211 tok/s, vLLM 0.32.0, 2026-11-22, `qualification/results/`", ["hardware"]),
        ("211 tok/s on 2 x H200, 2026-11-22, `qualification/results/`", ["vLLM version"]),
        ("211 tok/s on 2 x H200, vLLM 0.32.0, `qualification/results/`", ["date"]),
        ("211 tok/s on 2 x H200, vLLM 0.32.0, 2026-11-22, `qualification/none/x.json`", ["source"]),
    ],
)
def test_a_condition_that_is_left_out_is_found(text: str, lacks: list[str]) -> None:
    assert has_figures(text)
    assert missing(text) == lacks


# Profile files


def measured(path: Path) -> list[dict[str, str]]:
    return tomllib.loads(path.read_text(encoding="utf-8")).get("measured", [])


ENTRIES = [pytest.param(entry, id=f"{path.stem}-{n}") for path in PROFILES for n, entry in enumerate(measured(path))]


def numbers(text: str) -> set[float]:
    return {float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_measured_entry_names_its_conditions_and_a_source_that_is_there(entry: dict[str, str]) -> None:
    assert HARDWARE.search(entry["hardware"])
    assert re.search(r"0\.\d+\.\d+|[0-9a-f]{8}|fork", entry["vllm"])
    assert DATE.search(entry["date"])
    source = entry["source"]
    if source.startswith("https://"):
        assert re.fullmatch(r"https://(?:huggingface\.co|github\.com)/[\w.-]+/[\w.-]+", source)
    elif source.startswith("make "):
        assert "CPU" in entry["hardware"]  # whoever has a CPU can measure it again
        assert re.search(rf"^{source.split()[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    else:
        assert source.startswith("qualification/results/")
        agrees(entry, json.loads((ROOT / source).read_text(encoding="utf-8")))


def agrees(entry: dict[str, str], result: dict[str, Any]) -> None:
    """Check that an entry and its result file are of the same measurement."""
    assert result["date"].startswith(entry["date"])
    assert result["replica"]["versions"]["vllm"] == entry["vllm"]
    assert result["replica"]["choices"]["model-name"] == entry["model"]
    assert result["replica"]["choices"]["hardware"] == entry["hardware"].split()[-1].lower()
    speeds, batches = re.search(r"(.*?) output tok/s at batch ([\d, ]+)", entry["what"]).groups()  # type: ignore[union-attr]
    made = {row["batch"]: row["output_tokens_per_second"] for row in result["rows"] if row["input"] == 256}
    stated = [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\.\d+", speeds)]
    assert stated == [round(made[int(batch)], 1) for batch in re.findall(r"\d+", batches)]
    assert {round(row["tpot_p50"], 2) for row in result["rows"] if row["input"] == 256} <= numbers(entry["what"])


def test_the_cards_bad_rows_stand_with_their_good_ones() -> None:
    """W4A16's card (2026-05-29) and NVFP4's (2026-05-25), in both profiles that quote them."""
    told = {path.stem: " ".join(entry["what"] for entry in measured(path)) for path in PROFILES}
    assert {433.2, 164.3, 104.3, 40.6, 34.9} <= numbers(told["64k"])
    assert {433.2, 164.3, 104.3, 584.0, 38.0} <= numbers(told["throughput"])


def comments(path: Path) -> Iterator[str]:
    """Yield the comments of a profile file: lines that follow one another as one."""
    block = ""
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        own, _, behind = line.partition("#")
        if own.strip() == "" and behind:
            block += behind
            continue
        if block:
            yield block
        block = ""
        if behind and '"' not in behind:
            yield behind


@each("path", PROFILES)
def test_a_figure_in_a_comment_names_its_conditions(path: Path) -> None:
    for comment in comments(path):
        if SPEED.search(comment) and not UNMEASURED.search(comment):
            assert missing(comment, source=False) == [], comment
        elif SIZE.search(comment) and re.search(r"measured|loaded|used|\ba GPU\b", comment):
            assert UNMEASURED.search(comment) or not missing(comment, source=False), comment
