"""The line that is written over: on a terminal that can, never in a pipe, never wider than the terminal."""

from __future__ import annotations

import io

import pytest

from dsv4_serve.entrypoint.cli.updating_line import UpdatingLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")


def shown(terminal: io.StringIO, *texts: str) -> str:
    line = UpdatingLine(terminal, {"TERM": "xterm"})
    assert line.watch
    for text in texts:
        line.watch(text)
    return terminal.getvalue()


def test_a_text_is_written_over_the_last_one() -> None:
    assert shown(Terminal(), "loading weights 43 %", "ready") == "\rloading weights 43 %\x1b[K\rready\x1b[K"


def test_a_long_text_is_cut_before_the_last_column(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(Terminal(), "x" * 99) == f"\r{'x' * 38}…\x1b[K"
    assert shown(Terminal(), "x" * 39) == f"\r{'x' * 39}\x1b[K"


def test_a_text_cannot_move_the_cursor() -> None:
    assert shown(Terminal(), "a\x1b[2Jb\nc\rd") == "\ra\\x1b[2Jb c\\rd\x1b[K"


def test_a_message_stands_above_and_the_end_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    with UpdatingLine(terminal, {"TERM": "xterm"}) as line:
        assert line.watch
        line.watch("one")
        line.message("said")
        line.watch("two")
    assert terminal.getvalue() == "\rone\x1b[K\r\x1b[K\rtwo\x1b[K\r\x1b[K"
    assert capsys.readouterr().err == "dsv4: said\n"


@pytest.mark.parametrize(
    ("stream", "term", "columns"),
    [(io.StringIO, "xterm", "80"), (Terminal, "dumb", "80"), (Terminal, "", "80"), (Terminal, "xterm", "10")],
    ids=["pipe", "dumb", "no TERM", "narrow"],
)
def test_there_is_no_line(stream: type[io.StringIO], term: str, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert UpdatingLine(stream(), {"TERM": term}).watch is None


def test_it_has_no_colours_so_no_color_keeps_it() -> None:
    assert UpdatingLine(Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}).watch
