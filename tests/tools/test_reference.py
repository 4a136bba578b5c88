"""The pages of docs/reference/: each is what the code says, and changes when the code does."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.catalog import catalog
from dsv4_serve.entrypoint.catalog.schema import Profile
from dsv4_serve.entrypoint.cli import arguments
from dsv4_serve.entrypoint.doctor import registry
from dsv4_serve.entrypoint.exit_status import ExitStatus
from dsv4_serve.entrypoint.resolve import auto, environment
from dsv4_serve.entrypoint.vllm_log import known_failures
from dsv4_serve.healthcheck import metrics
from tools import reference
from tools.reference import failures, k_by_load

RULE = '[[refuse]]\nname = "pro-hardware"\nbecause = "new"\ninstead = "new"\n'
Change = Callable[[pytest.MonkeyPatch, Path], object]


def add_rule(patch: pytest.MonkeyPatch, folder: Path) -> None:
    shutil.copytree(catalog.SHIPPED, folder / "profiles")
    with (folder / "profiles/128k.toml").open("a", encoding="utf-8") as file:
        file.write(RULE)
    patch.setattr(catalog, "SHIPPED", folder / "profiles")


CHANGES: dict[str, Change] = {
    "auto.md": lambda patch, _: patch.setattr(auto, "rank", lambda one, _goal, _gpus: (one.requests,)),
    "checks.md": lambda patch, _: patch.setitem(registry.GROUPS, "New", ()),
    "commands.md": lambda patch, _: patch.setattr(arguments, "VLLM_FLAGS", "New."),
    "environment.md": lambda patch, _: patch.setitem(environment.FLAGS, "PORT", "new"),
    "exit-statuses.md": lambda patch, _: patch.setattr(ExitStatus.HUNG, "meaning", "New."),
    "failures.md": lambda patch, _: patch.setattr(known_failures, "REPORT", "New."),
    "k-by-load.md": lambda patch, _: patch.setattr(k_by_load, "LOADS", (1, 2)),
    "metrics.md": lambda patch, _: patch.setitem(metrics.FAMILIES, "dsv4_new", metrics.Family("dsv4_new", "New.")),
    "profile-keys.md": lambda patch, _: patch.setattr(Profile.model_fields["requests"], "default", 7),
    "refusals.md": add_rule,
}
"""One change of the code for each page."""


def stale(name: str) -> bool:
    text = (reference.FOLDER / name).read_text(encoding="utf-8")
    return reference.page(name, text) != text


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_page_is_what_the_code_says(name: str) -> None:
    assert not stale(name), "run `python -m tools.reference`"


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_page_is_stale_when_the_code_changes(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    CHANGES[name](monkeypatch, tmp_path)
    assert stale(name)


def test_a_step_takes_the_time_of_the_tokens_that_it_yields() -> None:
    row = {"requests": 4, "output": 256, "tpot_p50": 4.0, "drafted": 1530}
    assert k_by_load.step(row, 3) == (8.0, 2.0)  # 1,020 tokens after the first ones, of 510 steps
    assert k_by_load.step({**row, "drafted": 0}, 0) == (4.0, 1.0)


def test_the_index_lists_every_page_and_no_other() -> None:
    index = (reference.FOLDER / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[(.*?)\]\(\1\) \|", index, re.MULTILINE)) == set(reference.PAGES)
    pages = {path.name for path in reference.FOLDER.glob("*.md")} - {"index.md"}
    assert set(re.findall(r"\]\((.*?)\)", index)) == pages


@pytest.mark.process
@pytest.mark.slow
def test_writing_changes_only_what_is_stale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = shutil.copytree(reference.FOLDER, tmp_path / "reference")
    monkeypatch.setattr(reference, "FOLDER", folder)
    quick = ("exit-statuses.md", "metrics.md", "profile-keys.md")  # the others take seconds
    monkeypatch.setattr(reference, "PAGES", {name: reference.PAGES[name] for name in quick})
    assert list(reference.write()) == []
    monkeypatch.setattr(ExitStatus.HUNG, "meaning", "New.")
    assert list(reference.write()) == [folder / "exit-statuses.md"]
    assert "| New. |" in (folder / "exit-statuses.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("glob", "words"),
    [
        ("True", "`it` is `True`"),
        ("[12]", "`it` is `1` or `2`"),
        ("[2-9]", "`it` is from `2` to `9`"),
        ("deep_gemm*", "`it` begins with `deep_gemm`"),
        ("*segments:true*", "`it` contains `segments:true`"),
    ],
)
def test_a_condition_of_an_advice_is_in_words(glob: str, words: str) -> None:
    assert failures.setting("it", glob) == words


def test_a_glob_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="no words for the glob"):
        failures.setting("it", "[!a]*")
