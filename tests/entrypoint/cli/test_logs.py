"""`dsv4 logs` and `dsv4 probe` print text of others: it moves no cursor."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dsv4_serve.entrypoint import json_log
from dsv4_serve.entrypoint.cli import main as cli
from dsv4_serve.entrypoint.cli import probe
from dsv4_serve.entrypoint.containers import daemon


def test_escape_sequences_in_a_container_s_log_do_not_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    written = [b"plain\n\x1b[2Jgone\n 10%\r 50%\r100%\r\nhalf", b" a line\x07"]
    container = SimpleNamespace(name="dsv4-replica-0", logs=lambda **_: iter(written))
    monkeypatch.setattr(daemon, "connect", lambda _: SimpleNamespace(ours=lambda: {container.name: container}))
    assert cli.main(["logs"]) == 0
    assert capsys.readouterr().out == "plain\n\\x1b[2Jgone\n100%\nhalf a line\\x07\n"


def test_json_lines_are_shown_as_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    made = json_log.line("vllm", "ERROR", "one\n  two\x1b[2J", process="EngineCore")
    containers = {
        name: SimpleNamespace(name=name, logs=lambda **_: iter([f"{made}\nplain\n".encode()])) for name in ("a", "b")
    }
    monkeypatch.setattr(daemon, "connect", lambda _: SimpleNamespace(ours=lambda: containers))
    assert cli.main(["logs"]) == 0
    first, second, third, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("a | ")
    assert first.endswith(" ERROR vllm EngineCore: one")
    assert (second, third) == ("a |   two\\x1b[2J", "a | plain")


def test_escape_sequences_in_an_answer_do_not_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(probe, "probe", lambda *_: (1, "[-]started failed: \x1b]0;title\x07"))
    assert cli.main(["probe", "ready", "--port", "1"]) == 1
    assert capsys.readouterr().err == "[-]started failed: \\x1b]0;title\\x07\n"
