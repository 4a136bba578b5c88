"""What Prometheus is told to ask, and that every metric on the dashboard exists."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from pair import Pair

from dsv4_serve.healthcheck import metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus/prometheus.yml"
DASHBOARD = json.loads((DEPLOY / "grafana/dsv4.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
NAMES = sorted(set(re.findall(r"\b(?:dsv4_|vllm:|haproxy_)[a-z_]+", " ".join(QUERIES))))
OF_A_HISTOGRAM = re.compile("_(total|bucket|count|sum)$")


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("dsv4_")])
def test_our_metrics_on_the_dashboard_are_those_that_we_answer(name: str) -> None:
    assert f'"{name}"' in Path(metrics.__file__).read_text()


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("vllm:")])
def test_vllm_s_metrics_on_the_dashboard_are_vllm_s(name: str) -> None:
    vllm = importlib.util.find_spec("vllm")
    if vllm is None or vllm.origin is None:
        pytest.skip("vLLM is not installed")
    source = (Path(vllm.origin).parent / "v1/metrics/loggers.py").read_text()
    assert f'"{OF_A_HISTOGRAM.sub("", name)}"' in source


def test_the_balancer_s_metrics_on_the_dashboard_are_haproxy_s(pair: Pair) -> None:
    text = pair.balancer.metrics()
    assert [name for name in NAMES if name.startswith("haproxy_") and f"{name}{{" not in text] == []


def test_the_dashboard_shows_what_tells_a_good_replica_from_a_bad_one() -> None:
    for name in ("acceptance_ratio", "progress_age", "dsv4_phase", "requests_waiting", "kv_cache", "first_token"):
        assert any(name in query for query in QUERIES)
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {
        yaml.safe_load((DEPLOY / "grafana/datasource.yml").read_text())["datasources"][0]["uid"]
    }


def promtool(*words: str | Path) -> None:
    program = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool is installed (PROMTOOL names one)")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_its_configuration() -> None:
    promtool("check", "config", "--syntax-only", PROMETHEUS)


def test_prometheus_reads_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(QUERIES)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


def test_prometheus_shows_the_key_to_our_health_server_only() -> None:
    jobs = {job["job_name"]: job for job in yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]}
    assert [name for name, job in jobs.items() if "authorization" in job] == ["replica"]
    assert jobs["replica"]["authorization"] == {"credentials_file": "/run/secrets/api-key"}
