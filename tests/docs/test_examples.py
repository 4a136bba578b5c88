"""The profile files that the pages show are read and resolved as the pages say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.cli import main

HOW_TO = Path(__file__).resolve().parents[2] / "docs/how-to"
FILE = re.compile(r"^```toml\n# profiles-of-mine/(\S+\.toml).*?\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every profile file of the pages, named by DSV4_PROFILES."""
    for page in HOW_TO.glob("own-*.md"):
        for name, text in FILE.findall(page.read_text(encoding="utf-8")):
            (tmp_path / name.rstrip(":")).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name.rstrip(":")).write_text(text, encoding="utf-8")
    monkeypatch.setenv("DSV4_PROFILES", str(tmp_path))
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main.main(list(words))
    return status, capsys.readouterr().out


def test_every_file_is_found(shown: Path) -> None:
    assert {str(path.relative_to(shown)) for path in shown.rglob("*.toml")} == {
        "mine.toml", "hardware/rtx-pro-5000.toml",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("page", "status", "words"),
    [
        ("own-profile.md", 0, "fit --profile mine --hardware h200"),
        ("own-hardware.md", 0, "fit --profile 64k --hardware rtx-pro-5000"),
        ("own-hardware.md", 1, "fit --profile 64k --hardware rtx-pro-5000 --tp 2"),
    ],
)
@pytest.mark.usefixtures("shown")
def test_the_answer_on_the_page_is_the_answer(
    page: str, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (HOW_TO / page).read_text(encoding="utf-8")
    given, out = answer(capsys, *words.split())
    block = next(part for part in text.split(f"$ dsv4 {words}\n")[1:])
    lines = [line for line in re.split(r"^(?:\$ |```)", block, flags=re.MULTILINE)[0].splitlines() if line != "…"]
    assert given == status
    assert lines
    assert [line for line in lines if line not in out.splitlines()] == []


@pytest.mark.usefixtures("shown")
def test_the_profile_overrides_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = answer(capsys, "explain", "--profile", "mine", "--hardware", "h200")
    assert status == 0
    page = (HOW_TO / "own-profile.md").read_text(encoding="utf-8")
    block = page.split("$ dsv4 explain --profile mine --hardware h200\n")[1].partition("```")[0]
    rows = [re.sub(r"\S*profiles-of-mine", "", line).split() for line in block.splitlines() if line != "…"]
    answered = [re.sub(r"/\S*(?=/mine\.toml)", "", line).split() for line in out.splitlines()]
    assert rows
    assert [row for row in rows if row not in answered] == []


@pytest.mark.usefixtures("shown")
def test_every_shipped_profile_is_for_hardware_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    for profile in ("64k", "128k", "256k", "524k", "1m"):
        status, out = answer(capsys, "explain", "--profile", profile, "--hardware", "rtx-pro-5000")
        assert status == 0
        assert re.search(r"gpu-memory-utilization +0.9 +architectures/gpu.toml", out)
        assert re.search(r"tensor-parallel-size +4 +\S*/hardware/rtx-pro-5000.toml", out)
