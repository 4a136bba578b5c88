"""A server that has just started is asked, and what its draft head did is said. The engine is a stand-in over real HTTP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsv4_serve.entrypoint import draft_report

ENGINE = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
port = int(sys.argv[sys.argv.index("--port") + 1])
accepted, drafted = 0, 0
class Engine(BaseHTTPRequestHandler):
    def do_GET(self): self.answer()
    def do_POST(self): self.answer()
    def answer(self):
        global accepted, drafted
        if self.path != "/health" and self.headers.get("Authorization") != "Bearer k":
            self.send_response(401); self.end_headers(); return
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/v1/completions":
            drafted += 20; accepted += int(os.environ["ACCEPTED"])
        body = {"data": [{"id": "m"}]}
        text = json.dumps(body) if self.path != "/metrics" else (
            f'vllm:spec_decode_num_draft_tokens_total{{engine="0"}} {drafted}.0\\n'
            f'vllm:spec_decode_num_accepted_tokens_total{{engine="0"}} {accepted}.0\\n')
        self.send_response(200); self.end_headers(); self.wfile.write(text.encode())
    def log_message(self, *args): pass
HTTPServer(("127.0.0.1", port), Engine).serve_forever()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def said(tmp_path: Path, accepted: int, *words: str, seconds: float = 30, key: str = "k") -> str:
    """Run `dsv4 serve` over the stand-in until it has spoken of the draft head, or for some seconds."""
    engine = tmp_path / "vllm"
    engine.write_text(f"#!{sys.executable}\n{ENGINE}")
    engine.chmod(0o755)
    env = {
        **os.environ,
        "DSV4_VLLM": str(engine),
        "HARDWARE": "h200",
        "ACCEPTED": str(accepted),
    } | ({"VLLM_API_KEY": key} if key else {})
    argv = [sys.executable, "-m", "dsv4_serve.entrypoint", "serve", "--port", str(free_port()), *words]
    log = tmp_path / "stderr"
    with log.open("wb") as out:
        ours = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=out)
        deadline = time.monotonic() + seconds
        while "draft head" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        ours.send_signal(signal.SIGTERM)
        assert ours.wait(10) == 128 + signal.SIGTERM
    return log.read_text()


def test_a_good_draft_head_is_reported_with_its_acceptance(tmp_path: Path) -> None:
    assert "72 of 80 draft tokens accepted (90%)." in said(tmp_path, 18)


def test_a_draft_head_that_drafts_noise_is_not_served_in_silence(tmp_path: Path) -> None:
    assert "0 of 80 draft tokens accepted (0%): WARNING" in said(tmp_path, 0)


def test_without_a_draft_head_nothing_is_asked(tmp_path: Path) -> None:
    assert "draft head" not in said(tmp_path, 18, "--speculative-config.num_speculative_tokens", "0", seconds=4)


@pytest.mark.parametrize(
    ("drafted", "accepted", "says"),
    [(0, 0, "drafted nothing"), (100, 9, "WARNING"), (100, 10, "(10%)."), (96, 96, "(100%).")],
)
def test_counts_become_a_sentence(drafted: int, accepted: int, says: str) -> None:
    assert says in draft_report.sentence(drafted, accepted)


DRAFTED = "vllm:spec_decode_num_draft_tokens_total"
METRICS = f"""\
# HELP {DRAFTED} Number of draft tokens.
# TYPE {DRAFTED} counter
{DRAFTED}{{engine="0",model_name="demo"}} 105.0
{DRAFTED}{{engine="1",model_name="demo"}} 1.05e+02
{DRAFTED.replace("_total", "_created")}{{engine="0",model_name="demo"}} 1.7e+09
"""


def test_a_counter_is_summed_over_its_labels_and_an_absent_one_is_zero() -> None:
    assert draft_report.draft_counters(METRICS) == (210, 0)


def test_a_key_of_the_command_line_is_used_too(tmp_path: Path) -> None:
    assert "72 of 80" in said(tmp_path, 18, "--api-key", "k", key="")
