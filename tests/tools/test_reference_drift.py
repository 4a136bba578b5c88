"""The pages of docs/reference/ against other sources: the text of the code, a running server, the rules of help."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from dsv4_serve.entrypoint import supervision_settings
from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.healthcheck import metrics
from dsv4_serve.healthcheck.state import GpuFault
from tests.healthcheck.test_metrics import FULL, read, samples_of
from tests.healthcheck.test_probe import replica
from tests.support.each import each
from tests.support.sources import TOGETHER, tree
from tools.reference import FOLDER, commands, environment, profile_keys
from tools.reference import metrics as metrics_page

pytestmark = TOGETHER

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("entrypoint", "healthcheck", "patcher", "demo")
OURS = re.compile(r"DSV4_[A-Z_]*[A-Z]|(?:VLLM|NCCL)_[A-Z0-9_]*[A-Z0-9]")
FAULT = GpuFault("0000:0a:00", 79, "the GPU has fallen off the bus")
EVERYTHING = dataclasses.replace(FULL, cache_hit=True, cache_saved=3.0, gpu_faults=(FAULT,))
"""A replica that knows the value of every metric."""


def listed(page: str) -> set[str]:
    """Every text in the first column of a page's tables."""
    rows = re.findall(r"^\| (`.*?) \|", (FOLDER / page).read_text(encoding="utf-8"), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def trees() -> Iterator[ast.Module]:
    for folder in PRODUCT:
        for path in (ROOT / folder).rglob("*.py"):
            yield tree(path)


def in_code(module: ast.Module) -> Iterator[str]:
    """Variables that code names: texts of ours, keys of an environment, and keys of tables that are one."""
    for node in ast.walk(module):
        match node:
            case ast.Constant(value=str(text)) if OURS.fullmatch(text):
                yield text
            case ast.Subscript(value=value, slice=ast.Constant(value=str(text))) if _environment(value):
                yield text
            case ast.Call(func=ast.Attribute(value=value, attr="get"), args=[ast.Constant(value=str(text)), *_]) if (
                _environment(value)
            ):
                yield text


def _environment(node: ast.AST) -> bool:
    return ast.unparse(node).rpartition(".")[2] in ("environ", "env", "operator")


def test_every_variable_in_the_code_is_on_the_page() -> None:
    found = {name for module in trees() for name in in_code(module)}
    assert {"DSV4_HEALTH_PORT", "DOCKER_HOST", "VLLM_API_KEY", "NCCL_P2P_DISABLE"} <= found
    assert sorted(found - listed("environment.md")) == []


def test_every_variable_of_compose_is_on_the_page() -> None:
    assert {"GPU_3", "REPLICA_MAXCONN", "COMPOSE_PROFILES"} <= set(environment.of_compose())
    assert set(environment.of_compose()) == set(environment.COMPOSE)


def test_every_variable_on_the_page_is_in_the_code_compose_or_a_profile_file() -> None:
    files = [path for folder in PRODUCT for path in (ROOT / folder).rglob("*.py")]
    files += [*(ROOT / "profiles").rglob("*.toml"), *map(ROOT.joinpath, environment.COMPOSE_FILES)]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    made = set(environment.supervisor_variables())  # of the names of settings
    assert [name for name in listed("environment.md") - made if name.rstrip("*") not in text] == []


@each("variable, name", environment.supervisor_variables().items())
def test_a_variable_of_the_supervisor_is_read(variable: str, name: str) -> None:
    defaults = supervision_settings.defaults()
    value = defaults[name].value if name in defaults else 0.3
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    if text:
        assert supervision_settings.from_environment({variable: text})[name].value == value


def test_a_running_replica_prints_the_metrics_of_the_page() -> None:
    named = {metrics_page.exported(family): family for family in metrics.FAMILIES.values()}
    with replica(EVERYTHING) as port, urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        printed = samples_of(answer.read().decode())
    assert set(printed) == set(named) == {name for name in listed("metrics.md") if name.startswith("dsv4_")}
    for name, samples in printed.items():
        if name != "dsv4_build_info":
            assert {label for labels in samples for label, _ in labels} == set(named[name].labels)


def test_every_label_and_its_values_are_on_the_page() -> None:
    page = (FOLDER / "metrics.md").read_text(encoding="utf-8").partition("## Labels")[2]
    printed = {name: samples for name, samples in read(EVERYTHING).items() if name != "dsv4_build_info"}
    texts = {text for samples in printed.values() for labels in samples for label in labels for text in label}
    assert {"phase", "draft-gate", "live"} <= texts
    assert [text for text in texts if f"`{text}`" not in page] == []


def test_every_key_says_what_it_is() -> None:
    kinds: list[type[BaseModel]] = [kind for kind, _ in profile_keys.FILES.values()]
    for kind in [*kinds, *profile_keys.BLOCKS.values(), *profile_keys.SETTINGS.values()]:
        for key, about in profile_keys.keys(kind).items():
            assert re.fullmatch(r"[A-Z`v].*[.)]\.?", about), f"{kind.__name__}: {key}"


@each("parser", commands.every(), ids=lambda parser: parser.prog)
def test_a_help_line_is_one_clause_with_its_default(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if action.dest == "help" or isinstance(action.choices, dict):
            continue
        assert action.help, f"{action.dest}: no help"
        text = parser._get_formatter()._expand_help(action)
        parts = commands.HELP.fullmatch(text)
        assert parts
        assert not re.search(r"[.;]$|\. ", parts["text"]), text
        assert parts["text"][0].islower(), text
        assert parts["env"] is None or parts["env"] in listed("environment.md")
        if action.default not in (None, False, argparse.SUPPRESS) and action.default != []:
            shown = " ".join(map(str, action.default)) if isinstance(action.default, list) else str(action.default)
            assert parts["default"] in (shown, shown.removesuffix(".0")), text


def test_the_default_profile_in_the_help_is_that_of_the_base() -> None:
    (rows,) = (rows for title, rows in commands.options(next(commands.every())).items() if title == "plan")
    assert rows[0][3] == Catalog([]).root().own.default_profile
