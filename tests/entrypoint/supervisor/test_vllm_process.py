"""The engine's own folder: its sockets have to have paths that the kernel takes."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from uuid import uuid4

from dsv4_serve.entrypoint.supervisor.vllm_process import own_folder


def test_a_socket_can_be_made_however_long_the_path_of_temporary_files_is(tmp_path: Path) -> None:
    for base in ("/tmp", str(tmp_path / ("long" * 20))):
        Path(base).mkdir(exist_ok=True)
        folder = own_folder(base)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / str(uuid4())))
        shutil.rmtree(folder)
