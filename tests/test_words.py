"""No text that a user meets has a word of the list below: words that are wrong in every context here."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.cli import help as help_command
from dsv4_serve.entrypoint.cli import parser as line
from tests.support.each import each
from tests.support.sources import TOGETHER, tree

pytestmark = TOGETHER

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("entrypoint", "healthcheck", "patcher", "demo")
TOML = (
    "entrypoint/vllm_log/failures.toml",
    "entrypoint/vllm_schema/retired.toml",
    "entrypoint/evals/published.toml",
    "entrypoint/smoke/models.toml",
)
DEPLOYED = {
    "deploy/prometheus/alerts.yml": r"(?:summary|description): (.*)",
    "deploy/grafana/dsv4.json": r'"(?:title|description|legendFormat)": "(.*)"',
    "deploy/haproxy/haproxy.cfg": r'"message": "(.*?)", "type"',
    "Makefile": r'## (.*)|echo (?:>&2 )?"(.*?)"|\$\(error (.*)\)',
    "tools/image/build.sh": r'echo >&2 "(.*)"',
}
"""The texts of other files, each as a regular expression with a group for them."""
SOURCES = sorted(path for folder in PRODUCT for path in (ROOT / folder).rglob("*.py"))

BANNED = {
    r"sheets?": "profile file",
    r"receipts?": "result",
    r"by lot": "random (routing)",
    r"held back|holds? back": "backoff",
    r"in company": "concurrent",
    r"trunk": "target model",
    r"ahead": "prebuild",
    r"asked for|asks for|as asked|was asked to": "requested",
    r"Ending": "exit reason",
    r"told": "a form of log, message or configure",
    r"it said|said nothing": "answered, no output",
    r"look(s|ed)? at|looked for": "check, read",
    r"became of|came of": "result",
    r"(?<!here )is no(?= (?!replica|engine|plan|such|supported|known|longer))": "is not a",
    r"takes no(?= ')": "does not take",
    r"goes on|go on|gets on": "continues, resumes",
    r"written over": "overwritten",
    r"left alone|in the way": "unchanged, conflict",
    r"anew|once more": "again",
    r"says? (why|which|who|how|what|whether|so)": "names, shows, see",
    r"(are|is) not to be had": "unavailable",
    r"nobody|somebody|someone": "name who",
    r"without a word": "silently, without a message",
    r"beside": "next to, in addition to",
    r"refused as": "use --skip NAME",
    r"(is|are) now named": "was renamed to",
    r"broken (JSON|TOML)": "not valid, invalid",
    r"of full length": "full-length",
    r"lies|stands|stood|wanted|thereby|hence": "plain words",
    r"(goes|went) away|nothing is (here|there)|not written out": "name what happened",
    r"for ever": "forever",
    r"over and over": "repeat",
    r"whoever": "name who",
    r"last words|words (above|below)": "last message, output",
    r"noticed while": "detected while",
    r"(came|comes?) back": "returned, succeeded",
    r"begun": "started",
    r"left as it (is|was)": "not changed",
    r"(?:are|is) not said": "not stated",
    r"talks?": "what it does",
    r"falls? apart": "degrades",
    r"thrown away": "discarded",
}
"""A word that no text may have, as a regular expression between word boundaries, and what to write in its place."""

ALLOWED = {
    "trunk-complete": "the former name of a check, which is refused with its present name",
    "compile-ahead": "the former name of a setting, which is refused with its present name",
}
"""Texts in which a banned word may stand, each with its reason."""

_CALLS = frozenset({
    "Problem", "check", "Cause", "ExitReason", "Finding", "HealthResponse", "Advice",
    "info", "warning", "error", "log", "print_message", "print", "answer", "failed", "passed", "skipped",
    "add_argument", "add_parser", "add_argument_group", "ArgumentParser", "add", "_gauge", "_known", "GaugeMetricFamily",
})  # fmt: skip
"""Calls whose texts reach a user, in addition to every exception."""


def words_of(text: str) -> list[str]:
    """Return each banned word in a text, with what to write in its place."""
    for allowed in ALLOWED:
        text = text.replace(allowed, "")
    return [
        f"{match[0]!r}: write {instead}"
        for pattern, instead in BANNED.items()
        for match in re.finditer(rf"\b(?:{pattern})(?!\w)", text, 0 if pattern[0].isupper() else re.IGNORECASE)
    ]


SPELLED = {"Humming": r"(?<![\w.])HUMMING(?!\w)"}
"""Names as their owners spell them, and other spellings of them; members of enums and variables are as they are."""
TEXTS = ("*.md", "*.py", "*.toml", "*.sh", "*.yml", "*.patch")


@pytest.mark.parametrize("name", SPELLED)
def test_a_name_is_spelled_in_one_way(name: str) -> None:
    """In pages, messages, comments, docstrings and the descriptions of patches."""
    folders = [ROOT / folder for folder in (*PRODUCT, "profiles", "deploy", "docs", "qualification", "tests", "tools")]
    paths = [*ROOT.glob("*.md"), *(path for folder in folders for kind in TEXTS for path in folder.rglob(kind))]
    lines = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in paths
        if path != Path(__file__)
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(SPELLED[name], line)
    ]
    assert not lines, f"write {name}:\n" + "\n".join(lines)


def test_the_list_finds_a_word_and_not_a_part_of_another() -> None:
    """A guard of the guard."""
    assert words_of("the trunk was told to go on") != []
    assert words_of("look at the sheet") == ["'sheet': write profile file", "'look at': write check, read"]
    assert words_of("'x' is no task; it takes no 'y'") == ["'is no': write is not a", "'takes no': write does not take"]
    assert words_of("besides, a spreadsheet of receipted trunks is no longer looking ahea") == []
    assert words_of("`trunk-complete` was renamed") == []


@each("path", SOURCES)
def test_no_message_has_a_banned_word(path: Path) -> None:
    """Messages of errors, log lines, answers, help texts and the declarations of checks."""
    bad = [f"{path}:{number}: {word} in {text!r}" for number, text in _texts(path) for word in words_of(text)]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("name", TOML)
def test_no_text_of_a_data_file_has_a_banned_word(name: str) -> None:
    """What is printed for a known failure, and for a name that vLLM has retired."""
    tables = tomllib.loads((ROOT / name).read_text(encoding="utf-8"))
    bad = [f"{name}: {word} in {text!r}" for text in _printed(tables) for word in words_of(text)]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("name", DEPLOYED)
def test_no_text_of_what_is_deployed_has_a_banned_word(name: str) -> None:
    """Alerts, the dashboard, the balancer's errors, and the messages of make and of the image's build."""
    found = re.findall(DEPLOYED[name], (ROOT / name).read_text(encoding="utf-8"))
    texts = [text for groups in found for text in ([groups] if isinstance(groups, str) else groups) if text]
    assert texts
    assert [f"{name}: {word} in {text!r}" for text in texts for word in words_of(text)] == []


@each("path", sorted((ROOT / "profiles").rglob("*.toml")))
def test_no_reason_in_a_profile_has_a_banned_word(path: Path) -> None:
    """What refusals, choices and `dsv4 profiles` print of a profile file."""
    bad = [f"{path}: {w} in {t!r}" for t in _printed(tomllib.loads(path.read_text("utf-8"))) for w in words_of(t)]
    assert not bad, "\n".join(bad)


@each("name", ["", *line.names()])
def test_no_help_has_a_banned_word(name: str) -> None:
    """The real help of every command and its subcommands, and the list of commands."""
    if not name:
        assert words_of(help_command.overview()) == []
        return
    _, commands = line.build([name])
    commands.parsers[name].attach_subcommands()
    parsers: list[Any] = [commands.parsers[name]]
    for action in commands.parsers[name]._actions:
        parsers += action.choices.values() if isinstance(action.choices, dict) else []
    assert [word for parser in parsers for word in words_of(parser.format_help())] == []


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string, parts of f-strings too, that a raise or a call of _CALLS is given."""
    module = tree(path)
    constants = {  # _FIX = "…", which declarations name
        target.id: node.value
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(module):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield from _strings(node.exc, constants)
        elif isinstance(node, ast.Call) and _called(node.func) in _CALLS:
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                yield from _strings(argument, constants)
    for node in ast.walk(module):
        decorated = isinstance(node, ast.FunctionDef) and any(
            isinstance(decorator, ast.Call) and _called(decorator.func) == "check" for decorator in node.decorator_list
        )
        if decorated and (text := ast.get_docstring(node)):  # type: ignore[arg-type]
            yield node.lineno, text  # type: ignore[attr-defined]


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _strings(node: ast.AST, constants: dict[str, ast.expr]) -> Iterator[tuple[int, str]]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner.lineno, inner.value
        elif isinstance(inner, ast.Name) and inner.id in constants and inner.id.isupper():
            yield from _strings(constants[inner.id], {})


def _printed(value: Any, key: str = "") -> Iterator[str]:
    """Yield the texts of a data file that are printed: not patterns, sources and links."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _printed(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _printed(inner, key)
    elif isinstance(value, str) and key in (
        "remedy",
        "answer",
        "because",
        "instead",
        "about",
        "what",
        "settings",
        "constructed",
    ):
        yield value
