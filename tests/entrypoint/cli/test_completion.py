"""Completion scripts, in the shells that read them."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.cli import completion, parser
from tests.support.patience import slowness

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    for shell in completion.SHELLS:
        (folder / shell).write_text(completion.script(shell), encoding="utf-8")
    return folder


def shell(name: str, *argv: str | Path, cwd: Path | None = None) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"no {name} is installed")
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TERM": "dumb"}
    done = subprocess.run(
        [name, *argv], stdin=subprocess.DEVNULL, env=env, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def in_bash(script: Path, *words: str, cwd: Path | None = None) -> list[str]:
    """What bash offers for the last of the words."""
    program = textwrap.dedent("""
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9
        eval "$(complete -p dsv4 | sed 's/.*-F \\([^ ]*\\).*/\\1/') dsv4 '${COMP_WORDS[COMP_CWORD]}' ''"
        printf '%s\\n' "${COMPREPLY[@]}"
    """)
    return shell("bash", "--norc", "-c", program, "bash", script, "dsv4", *words, cwd=cwd).split()


CASES = [
    (["ser"], {"serve"}),
    (["serve", "--dr"], {"--dry-run"}),
    (["weights", "fe"], {"fetch"}),
    (["bench", "comp"], {"compare"}),
    (["bench", "compare", "--form"], {"--format"}),
    (["bench", "--without"], {"--without-weights"}),
    (["patch", "apply", "--ch"], {"--check"}),
    (["eval", "gsm8k", "--thinking", "h"], {"high"}),
    (["completion", "z"], {"zsh"}),
    (["probe", "l"], {"live"}),
]


@pytest.mark.parametrize(("words", "offered"), CASES, ids=[" ".join(words) for words, _ in CASES])
def test_bash_completes(scripts: Path, words: list[str], offered: set[str]) -> None:
    assert set(in_bash(scripts / "bash", *words)) == offered


def test_bash_completes_every_command(scripts: Path) -> None:
    assert set(parser.names()) <= set(in_bash(scripts / "bash", ""))


def test_bash_completes_files_and_folders(scripts: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "more.json").touch()
    assert set(in_bash(scripts / "bash", "bench", "compare", "mo", cwd=tmp_path)) == {"models", "more.json"}
    assert in_bash(scripts / "bash", "weights", "fetch", "nvfp4", "--to", "mo", cwd=tmp_path) == ["models"]


@pytest.mark.parametrize("name", completion.SHELLS)
def test_the_shell_reads_its_script(scripts: Path, name: str) -> None:
    check = ("--no-execute",) if name == "fish" else ("-n",)
    assert shell(name, *check, scripts / name) == ""


@pytest.mark.parametrize(("words", "offered"), CASES, ids=[" ".join(words) for words, _ in CASES])
def test_zsh_completes(scripts: Path, tmp_path: Path, words: list[str], offered: set[str]) -> None:
    """In a terminal, as zsh completes nowhere else."""
    if shutil.which("zsh") is None:
        pytest.skip("no zsh is installed")
    (tmp_path / "_dsv4").write_bytes((scripts / "zsh").read_bytes())
    pid, terminal = pty.fork()
    if not pid:
        os.execvpe("zsh", ["zsh", "-f", "-i"], {"PATH": os.environ["PATH"], "TERM": "dumb", "LC_ALL": "C.UTF-8"})
    try:
        start = f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -D; bindkey '^I' complete-word"
        os.write(terminal, f"{start}; print REA''DY\n".encode())
        assert seen(terminal, "READY")
        os.write(terminal, f"{' '.join(['dsv4', *words])}\t".encode())
        assert seen(terminal, " ".join(["dsv4", *words[:-1], *offered]) + " ")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def seen(terminal: int, text: str) -> bool:
    """Whether a text comes out of a terminal within ten seconds."""
    out, until = b"", time.monotonic() + 10 * slowness()
    while text.encode() not in out and time.monotonic() < until:
        if select.select([terminal], [], [], 0.1)[0]:
            out += os.read(terminal, 4096)
    return text.encode() in out


@pytest.mark.parametrize(("words", "offered"), CASES, ids=[" ".join(words) for words, _ in CASES])
def test_fish_completes(scripts: Path, words: list[str], offered: set[str]) -> None:
    program = f"source {scripts / 'fish'}; complete --do-complete '{' '.join(['dsv4', *words])}'"
    lines = shell("fish", "--no-config", "-c", program).splitlines()
    assert offered <= {line.partition("\t")[0] for line in lines}


def test_an_unknown_shell_is_refused(dsv4: Run) -> None:
    answer = dsv4("completion", "tcsh")
    assert (answer.returncode, "choose from bash, zsh, fish" in answer.stderr) == (64, True)
    assert dsv4("completion", "bash").stdout == completion.script("bash") + "\n"
