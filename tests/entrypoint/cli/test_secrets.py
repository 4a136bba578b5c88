"""A secret inside of a JSON flag: vLLM gets it, and nothing else shows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsv4_serve.demo.llama import write_checkpoint
from dsv4_serve.entrypoint.client.local_replica import free_port
from tests.support.patience import slowness

pytestmark = pytest.mark.process
SECRETS = ("hunter2-password", "hunter3-of-a-url", "hunter4-token")
FLAGS = [
    "--kv-transfer-config",
    json.dumps(
        {
            "kv_connector": "LMCacheConnectorV1",
            "kv_role": "kv_both",
            "kv_connector_extra_config": {"url": f"redis://u:{SECRETS[1]}@host", "nested": [{"password": SECRETS[0]}]},
        }
    ),
    "--additional-config",
    json.dumps({"auth": {"token": SECRETS[2]}, "epsilon": 1e-06}),
]
VLLM = """#!{python}
import json, os, sys
from pathlib import Path
file = Path(sys.argv[sys.argv.index("--config") + 1])
seen = {{"argv": sys.argv, "parent": Path(f"/proc/{{os.getppid()}}/cmdline").read_text(), "file": file.read_text()}}
seen["mode"] = file.stat().st_mode & 0o777
Path("{seen}").write_text(json.dumps(seen))
flags = {{name: json.loads(value) for name, value in json.loads(seen["file"]).items()}}
print("(APIServer pid=1) INFO 11-22 06:00:00 [api_utils.py:286] non-default args:", flags, flush=True)
raise SystemExit(f"(EngineCore pid=2) ERROR 11-22 06:00:00 [core.py:1] ValueError: cannot reach {{flags}}")
"""


def test_vllm_gets_it_in_a_file_and_no_log_argument_or_file_of_ours_holds_it(tmp_path: Path) -> None:
    program, run = tmp_path / "vllm", tmp_path / "run"
    program.write_text(VLLM.format(python=sys.executable, seen=tmp_path / "seen.json"))
    program.chmod(0o755)
    (tmp_path / "termination-log").touch()
    env = {**os.environ, "PROFILE": "demo", "MODEL": f"demo={write_checkpoint(tmp_path / 'model')}"}
    env |= {"DSV4_VLLM": str(program), "DSV4_RUN_DIR": str(run), "DSV4_HEALTH_PORT": "0", "PORT": str(free_port())}
    env |= {"DSV4_TERMINATION_LOG": str(tmp_path / "termination-log"), "TMPDIR": str(tmp_path)}
    serve = [sys.executable, "-m", "dsv4_serve.entrypoint", "serve", *FLAGS]
    done = subprocess.run(serve, env=env, capture_output=True, text=True, timeout=60 * slowness(), check=False)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert done.returncode != 0
    assert json.loads(json.loads(seen["file"])["additional-config"]) == json.loads(FLAGS[3])
    assert all(secret in seen["file"] for secret in SECRETS)
    assert seen["mode"] == 0o600
    assert not Path(seen["argv"][-1]).exists()
    texts = {str(file): file.read_text() for file in [*run.rglob("*"), tmp_path / "termination-log"] if file.is_file()}
    texts |= {"stdout": done.stdout, "stderr": done.stderr, "argv": str(seen["argv"]), "parent": seen["parent"]}
    assert "non-default args: {'additional-config': {'auth': {'token': '***'}" in done.stdout
    assert "cannot reach" in texts[str(tmp_path / "termination-log")]
    assert [(name, secret) for name, text in texts.items() for secret in SECRETS if secret in text] == []
