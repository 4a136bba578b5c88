"""Run `dsv4` in this process, in a folder and an environment of its own; its answers do not name this machine."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import os
import re
import shutil
import sys
import tempfile
import threading
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsv4_serve.entrypoint.cli.main import main
from tools.golden import ROOT

FILES = ROOT / "tests/golden/files.toml"
"""What lies in the folder that commands run in, by name."""


@dataclass(frozen=True)
class Answer:
    """Exit status, both streams, and the files that a command wrote."""

    status: int
    out: str
    err: str
    files: Mapping[str, str]


class Sandbox:
    """The current folder, with the files of FILES; commands see nothing of this machine's environment."""

    def __init__(self, folder: Path, environ: Mapping[str, str], replicas: str) -> None:
        """`replicas` is the address of a server that answers with the files below the folder `replicas`."""
        self.folder, self.environ, self.replicas = folder, environ, replicas

    def run(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Answer:
        """Return what `dsv4 ARGV…` answers; files that it writes below `out` are read and removed."""
        os.environ.clear()
        os.environ.update({**self.environ, **(env or {})})
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                status = main([word.replace("REPLICAS", self.replicas) for word in argv])
            except SystemExit as exit_:  # argparse's --help
                status = int(exit_.code or 0)
        return Answer(status, self._plain(out.getvalue()), self._plain(err.getvalue()), self._written())

    def _written(self) -> dict[str, str]:
        """Return the files below `out` by name, and remove them; a copy of a shipped one reads `as shipped`."""
        top = self.folder / "out"
        if not top.exists():
            return {}
        names = sorted(path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file())
        texts = {name: (top / name).read_text(encoding="utf-8") for name in names}
        shutil.rmtree(top)
        return {name: "as shipped" if text == _shipped(name) else text for name, text in texts.items()}

    def _plain(self, text: str) -> str:
        names = {str(self.folder): "<here>", str(ROOT): "<tree>", sys.executable: "<python>", self.replicas: "REPLICAS"}
        for real, name in names.items():
            text = text.replace(real, name)
        text = re.sub(r"(<tree>\S*) {2,}", r"\1  ", text)  # a column's padding, by how long the tree's path is
        text = re.sub(r"\d{8}T\d{6}\.\d+Z", "<now>", text)
        return re.sub(r"\(choose from .*?\)", lambda match: match[0].replace("'", ""), text)  # quoted until Python 3.11


def _shipped(name: str) -> str | None:
    path = ROOT / "deploy/kubernetes" / name
    return path.read_text(encoding="utf-8") if path.is_file() else None


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextlib.contextmanager
def _serving(folder: Path) -> Iterator[str]:
    """Answer every GET with the file below a folder, and yield the address."""
    handler = functools.partial(_Files, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def sandbox() -> Iterator[Sandbox]:
    """Make the folder, enter it, and put everything back."""
    environ_before, folder_before, mask = dict(os.environ), Path.cwd(), os.umask(0o022)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        for name, text in tomllib.loads(FILES.read_text(encoding="utf-8")).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="latin-1")  # so that one of them is not UTF-8
        for name in ("bin", "home"):
            (folder / name).mkdir()
        environ = {
            "PATH": str(folder / "bin"),
            "HOME": str(folder / "home"),
            "COLUMNS": "100",
            "LC_ALL": "C.UTF-8",
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "container": "oci",
        }
        os.chdir(folder)
        try:
            with _serving(folder / "replicas") as address:
                yield Sandbox(folder, environ, address)
        finally:
            os.chdir(folder_before)
            os.umask(mask)
            os.environ.clear()
            os.environ.update(environ_before)
