"""Logs of real starts and failures of vLLM, as the supervisor reads them."""

from __future__ import annotations

from pathlib import Path

from dsv4_serve.entrypoint.vllm_log.parser import Splitter

LOGS = Path(__file__).parents[1] / "entrypoint/vllm_log/logs"


def lines_of(name: str) -> list[str]:
    """Return the lines of a log."""
    splitter = Splitter()
    return splitter.feed((LOGS / f"{name}.log").read_bytes()) + splitter.close()
