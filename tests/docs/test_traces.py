"""What docs/how-to/traces.md promises of the locks, and of its collector."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/how-to/traces.md").read_text(encoding="utf-8")
NEEDED = (
    "opentelemetry-sdk",
    "opentelemetry-api",
    "opentelemetry-exporter-otlp",
    "opentelemetry-semantic-conventions-ai",
)


@pytest.mark.parametrize("lock", ["gpu.txt", "cpu.txt"])
def test_the_images_hold_what_vllm_needs_for_traces(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    assert [name for name in NEEDED if not re.search(rf"^{name}==", text, re.MULTILINE)] == []


def test_the_collector_s_pipeline_names_parts_that_it_has() -> None:
    block = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert block
    config = yaml.safe_load(block[1])
    [pipeline] = config["service"]["pipelines"].values()
    for kind, names in pipeline.items():
        assert set(names) <= config[kind].keys()
    endpoints = [one["endpoint"] for one in config["receivers"]["otlp"]["protocols"].values()]
    assert all(f"COLLECTOR:{endpoint.rpartition(':')[2]}" in PAGE for endpoint in endpoints)
