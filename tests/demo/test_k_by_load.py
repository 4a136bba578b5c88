"""k by load on real vLLM for CPU: the known answers stay what they are while the number of draft tokens moves."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dsv4_serve.demo import question
from dsv4_serve.demo.exhibits import tiny_deepseek_v4
from dsv4_serve.entrypoint.client import counters, http, local_replica
from dsv4_serve.entrypoint.client.counters import Counters
from dsv4_serve.entrypoint.client.local_replica import ServeProcess, free_port

SCHEDULE = "[[1, 1, 3], [2, 3, 1], [4, 4, 0]]"
ARGUMENTS = (
    "--gate.tokens=4",
    "--speculative-config.num_speculative_tokens=3",
    f"--speculative-config.num_speculative_tokens_per_batch_size={SCHEDULE}",
)


def read(server: ServeProcess) -> Counters:
    return counters.read(http.get_accepted(f"{server.endpoint.url}/metrics", server.endpoint.key).text)


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.skipif(
    "avx512_bf16" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"),
    reason="vLLM's CPU wheel has DeepSeek-V4's kernels for x86 with AVX512_BF16 only",
)
def test_the_answers_are_known_alone_with_three_draft_tokens_and_together_with_fewer(tmp_path: Path) -> None:
    exhibit = tiny_deepseek_v4(tmp_path)
    path = os.pathsep.join(filter(None, [str(exhibit.vllm), os.environ.get("PYTHONPATH", "")]))
    environ = {**os.environ, "PYTHONPATH": path, "PROFILE": "demo-v4", "MODEL": str(exhibit.checkpoint)}
    port = free_port(8400)
    with local_replica.serving(ARGUMENTS, environ, tmp_path / "log", port, free_port(port + 1)) as server:
        for _ in server.until_ready(600, 5):
            pass
        assert "by position 100%, 100%, 100% of " in (tmp_path / "log").read_text(encoding="utf-8")
        first = read(server)
        answers = [question.ask(server, question.__name__)]
        alone = read(server)
        with ThreadPoolExecutor(4) as pool:
            answers += pool.map(lambda _: question.ask(server, question.__name__), range(4))
        together = read(server)
    assert {(answer.reasoning, answer.text) for answer in answers} == {(exhibit.reasoning, exhibit.answer)}
    assert alone.drafted - first.drafted == 3 * (alone.drafts - first.drafts) > 0
    drafted, generated = together.drafted - alone.drafted, together.generated - alone.generated
    assert drafted < generated / 4  # with three each time, it is three quarters
    assert together.accepted - alone.accepted >= 0.9 * drafted
