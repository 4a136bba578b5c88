"""
What the model cards patched and vLLM now does must stay so: each check of seed-patches.toml, in the installed vLLM.

`python -m tests.patcher.test_seed_patches > docs/explanation/seed-patches.md` writes the page.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.patcher.errors import TreeError
from dsv4_serve.patcher.series import PATCHES, newest, read_series
from dsv4_serve.patcher.tree import installed

DATA = PATCHES.parent / "seed-patches.toml"
PAGE = Path(__file__).resolve().parents[2] / "docs/explanation/seed-patches.md"
ROWS = tomllib.loads(DATA.read_text("utf-8"))["patch"]
CHECKS = [
    pytest.param(check, id=f"{row['reference']}-{number}")
    for row in ROWS
    for number, check in enumerate(row.get("check", ()), 1)
]
STATES = {
    "upstream": "vLLM does it",
    "moot": "the cause is gone or out of reach",
    "series": "a patch of this repository does it",
    "flag": "a flag does it",
    "open": "vLLM has the fault, and no Python patch can mend it",
}


def part(source: str, symbol: str) -> str:
    """Return the source of a class, function or assignment named `Outer.inner`. Raises LookupError."""
    body: list[ast.stmt] = ast.parse(source).body
    found: ast.stmt | None = None
    for name in symbol.split("."):
        found = next((node for node in body if name in _names(node)), None)
        if found is None:
            raise LookupError(symbol)
        body = getattr(found, "body", [])
    return ast.get_source_segment(source, found) or "" if found else ""


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    return [t.id for t in node.targets if isinstance(t, ast.Name)] if isinstance(node, ast.Assign) else []


def holds(check: dict[str, str], source: str) -> bool:
    """Whether the source still shows the behaviour."""
    if "never" in check:
        return not re.search(check["never"], source)
    try:
        return bool(re.search(check["pattern"], part(source, check["symbol"])))
    except LookupError:
        return False


def read(file: str) -> str:
    """Return a file of the installed vLLM, or all modules of a folder."""
    try:
        path = installed() / file
    except TreeError:
        pytest.skip("no vLLM is installed")
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return "\n".join(f.read_text("utf-8") for f in files)


@pytest.mark.parametrize("check", CHECKS)
def test_the_installed_vllm_still_behaves_so(check: dict[str, str]):
    assert holds(check, read(check["file"])), f"{check['file']}: {check.get('symbol', '')} no longer shows it"


@pytest.mark.parametrize("check", CHECKS)
def test_the_check_fails_without_the_behaviour(check: dict[str, str]):
    source = read(check["file"])
    if "never" in check:
        assert not holds(check, source + "\n# " + check["never"].replace("\\", ""))
    else:
        name = check["symbol"].rpartition(".")[2]
        assert not holds(check, source.replace(name, "renamed"))
        assert not re.search(check["pattern"], f"def {name}(*_): ...")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["reference"])
def test_a_row_has_a_check_a_patch_or_a_reason(row: dict[str, Any]):
    assert row["state"] in STATES
    if row["state"] == "series":
        assert row["now"] in {patch.name for patch in read_series(PATCHES / newest()).patches}
    elif "check" not in row:
        assert re.search("compiled code|nothing is built", row["now"])


def test_the_page_is_made_from_the_data():
    assert PAGE.read_text("utf-8") == page(), (
        "run: python -m tests.patcher.test_seed_patches > docs/explanation/seed-patches.md"
    )


def page() -> str:
    """Return docs/explanation/seed-patches.md."""
    lines = [
        "# What the model cards patched, and where it stands in vLLM 0.32.0",
        "",
        "The cards of the four artifacts ask for a patched vLLM, a fork, or forced settings. Most of what they patch is upstream by now,",
        "or its cause is gone. A test checks each behaviour in the installed vLLM, in the file and symbol that the table names.",
        "`python -m tests.patcher.test_seed_patches` makes this page from `patcher/seed-patches.toml`.",
        "",
        *(f"* **{state}**: {meaning}" for state, meaning in STATES.items()),
        "",
        "| card's patch | for | in 0.32.0 | file and symbol |",
        "|---|---|---|---|",
        *(_line(row) for row in ROWS),
    ]
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any]) -> str:
    places = dict.fromkeys(_place(check) for check in row.get("check", ()))
    now = f"`{row['now']}`" if row["state"] == "series" else row["now"]
    cells = (f"{row['seed']} ({row['reference']})", row["need"], f"**{row['state']}**: {now}", "<br>".join(places))
    return f"| {' | '.join(cells)} |"


def _place(check: dict[str, str]) -> str:
    symbol = check.get("symbol") or f"no {check['never']}".replace("\\", "")
    return f"`{check['file'].removeprefix('vllm/')}` `{symbol}`"


if __name__ == "__main__":
    print(page(), end="")
