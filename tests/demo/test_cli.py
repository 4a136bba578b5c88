"""The demo as people run it: a real `dsv4 serve`, real vLLM on CPU, Ctrl-C."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from openai import OpenAI

from dsv4_serve.demo import llama
from dsv4_serve.entrypoint.client import local_replica

COMMAND = (sys.executable, "-m", "dsv4_serve.demo")


@contextmanager
def held_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind((local_replica.LOCAL, 0))
        holder.listen()
        yield holder.getsockname()[1]


def read_until(process: subprocess.Popen[str], mark: str) -> str:
    said = ""
    assert process.stdout
    for line in process.stdout:
        said += line
        if mark in line:
            return said
    pytest.fail(f"the demo ended before it said {mark!r}:\n{said}")


def ask(url: str, question: str) -> str:
    with OpenAI(base_url=url, api_key="none") as client:
        reply = client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": question}], temperature=0
        )
    return reply.choices[0].message.content or ""


@pytest.mark.slow
def test_the_demo_answers_drafts_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("MAX_MODEL_LEN", "7")  # a setting of the caller's shell is not the demo's
    with held_port() as port:
        command = [*COMMAND, "--folder", str(tmp_path), "--port", str(port)]
        demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            said = read_until(demo, "curl ")
            url = re.findall(r"http://\S+?/v1", said)[0]
            assert f"{port} is taken" in said
            assert llama.ANSWER in said
            assert "98 of 105 draft tokens accepted" in said
            assert ask(url, "Und auf Deutsch? ß €") == llama.ANSWER
            children = local_replica.descendants(demo.pid)
            assert len(children) > 1
            demo.send_signal(signal.SIGINT)
            assert demo.wait(60) == 0
        finally:
            demo.kill()
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
def test_a_server_that_is_not_ready_in_time_is_stopped(tmp_path):
    port = local_replica.free_port()
    command = [*COMMAND, "--check", "--folder", str(tmp_path), "--limit", "0", "--port", str(port)]
    demo = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert demo.returncode == 1
    assert re.fullmatch(r"error: the replica is not ready after 0 s: .* its log is \S+\n", demo.stderr)
    serving = [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("PORT") == str(port)]
    assert not serving


def test_a_folder_that_cannot_be_written_is_reported_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    demo = subprocess.run([*COMMAND, "--folder", str(tmp_path / "file")], capture_output=True, text=True, check=False)
    assert demo.returncode == 1
    assert re.fullmatch(r"error: .*Not a directory.* --folder names another folder\n", demo.stderr)


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_an_invalid_port_is_refused(port):
    demo = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True, check=False)
    assert demo.returncode == 2
    assert "--port" in demo.stderr
    assert "Traceback" not in demo.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    "avx512_bf16" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"),
    reason="vLLM's CPU wheel has DeepSeek-V4's kernels for x86 with AVX512_BF16 only",
)
def test_the_demo_of_deepseek_v4_gives_every_token_and_its_draft_head_is_reported(tmp_path):
    command = [*COMMAND, "--profile", "demo-v4", "--check", "--folder", str(tmp_path), "--port", "8300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MTP gate: 100% of " in done.stdout
    assert "The answer is the known one." in done.stdout
