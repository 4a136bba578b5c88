"""The commands as they are listed, and what is imported for one of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dsv4_serve.entrypoint import cli, results
from dsv4_serve.entrypoint.cli import help as listing
from dsv4_serve.entrypoint.cli import parser
from dsv4_serve.entrypoint.cli.main import main

ROOM = Path(cli.__file__).parent
HELPS = [[name] for name in parser.names()] + [["bench", "compare"], ["patch", "apply"], ["patch", "export"]]


def test_every_module_that_registers_is_in_a_group_and_registers_its_own_name() -> None:
    assert set(parser.names()) == {path.stem for path in ROOM.glob("*.py") if "\ndef register(" in path.read_text()}
    for name in parser.names():
        assert list(parser.build([name])[1].parsers) == [name]


def test_the_list_of_commands_has_groups_and_one_sentence_on_one_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = listing.overview().splitlines()
    assert [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")] == list(parser.GROUPS)
    sentences = parser.build(parser.names())[1].sentences
    for name, sentence in sentences.items():
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert ". " not in sentence
        assert [line for line in lines if line.split() == [name, *sentence.split()]], f"{name}: not on one line"
    for command in ([], ["help"], ["--help"], ["-h"]):
        assert main(command) == 0
        assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
def test_the_help_of_a_command_fits_80_columns_and_is_that_of_help(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    texts = []
    for argv in ([*command, "--help"], ["help", *command]):
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert ended.value.code == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[0].startswith(f"usage: dsv4 {' '.join(command)} ")
    assert max(map(len, texts[0].splitlines())) <= 80


def test_the_version_is_printed_by_a_word_and_by_two_options(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("version", "--version", "-V"):
        assert main([word]) == 0
        assert capsys.readouterr().out.startswith("dsv4-serve ")


def test_only_the_module_of_the_command_is_imported() -> None:
    code = "import sys; from dsv4_serve.entrypoint.cli.main import main; main(['explain', '--hardware', 'h200']);"
    code += "print(*(name for name in sys.modules if name.startswith('dsv4_serve.entrypoint.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rooms = {name.split(".")[2] for name in done.stdout.splitlines()[-1].split()}
    commands = {name.split(".")[3] for name in done.stdout.splitlines()[-1].split() if ".entrypoint.cli." in name}
    assert commands & set(parser.names()) == {"explain"}
    assert not rooms & {"bench", "smoke", "evals", "report", "containers", "kubernetes", "supervisor"}
    fetching = [name for name in done.stdout.split() if re.search(r"\.weights\.(hub|download|manifest)$", name)]
    assert fetching == []


def test_listing_the_commands_imports_no_room_of_theirs() -> None:
    code = "import sys; from dsv4_serve.entrypoint.cli.main import main; main([]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydantic", "httpx", "docker", "asyncio"} & set(done.stdout.splitlines()[-1].split())


def test_results_go_where_they_are_looked_for() -> None:
    """The folder's name stands in the parser, because importing `results` takes as long as all else of it."""
    for command in (["bench"], ["smoke"], ["eval", "gsm8k"]):
        assert str(parser.parse(command)[0].out) == results.FOLDER
    assert str(parser.parse(["report"])[0].folder) == results.FOLDER


@pytest.mark.parametrize("module", ["errors", "cli.parser", "cli.explain", "catalog.catalog", "resolve.layers"])
def test_ctrl_c_while_it_is_imported_is_no_traceback(module: str) -> None:
    code = f"""
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "dsv4_serve.entrypoint.{module}":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from dsv4_serve.entrypoint.cli.main import main
sys.exit(main(["explain", "--hardware", "h200"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["qualify", "--minutes", "abc"], "'abc' is not a number of minutes above 0 and up to 1440"),
        (["tune", "--acceptance", "2"], "2 is not a share from 0 to 1"),
        (["tune", "--acceptance", "0.9", "nan"], "nan is not a share from 0 to 1"),
        (["bench", "--acceptance", "most"], "most is not a share from 0 to 1"),
    ],
)
def test_a_number_that_is_none_is_named_with_its_range(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 64
    assert message in capsys.readouterr().err
