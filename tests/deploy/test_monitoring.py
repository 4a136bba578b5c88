"""What Prometheus scrapes and watches, and that every metric in rules and dashboard exists."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsv4_serve.entrypoint.draft_floors import Floors
from dsv4_serve.entrypoint.vllm_schema import schema
from dsv4_serve.healthcheck import metrics
from dsv4_serve.healthcheck.state import Acceptance, GpuFault, Health
from tests.deploy.pair import Pair
from tests.support.program import need

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus/prometheus.yml"
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
GRAFANA = ROOT / "deploy/grafana"
DASHBOARD = json.loads((GRAFANA / "dsv4.json").read_text())
ROWS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
ALARMS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
NAMES = sorted(
    set(re.findall(r"\b(?:dsv4_|vllm:|haproxy_)[a-z_]+", " ".join([*QUERIES, *(rule["expr"] for rule in RULES)])))
)


def replica_s_metrics() -> set[str]:
    """What /metrics answers of a replica that has everything to say."""
    health = Health(
        engine=1,
        ready_after=600.0,
        floors=Floors(0.4, (0.4, 0.2)),
        gate_acceptance=Acceptance(100, 90),
        live_acceptance=Acceptance(100, 90, 50, (48, 42)),
        cache_hit=True,
        cache_saved=120.0,
        gpu_faults=(GpuFault("0000:17:00.0", 79, "GPU has fallen off the bus."),),
    )
    return set(re.findall(r"^(dsv4_\w+)", metrics.as_text(health, 0.0).decode(), re.MULTILINE))


def test_our_metrics_are_those_that_a_replica_answers() -> None:
    used = {name for name in NAMES if name.startswith("dsv4_")}
    assert used - replica_s_metrics() == set()
    assert len(used) > 8


def test_vllm_s_metrics_are_those_of_the_pinned_vllm() -> None:
    used = {name for name in NAMES if name.startswith("vllm:")}
    assert used - set(schema.facts()["metrics"]) == set()
    assert len(used) > 5


def test_the_balancer_s_metrics_are_haproxy_s(pair: Pair) -> None:
    text = pair.balancer.metrics()
    assert [name for name in NAMES if name.startswith("haproxy_") and f"{name}{{" not in text] == []


def test_every_aggregate_that_is_queried_is_recorded_and_every_recorded_one_is_used() -> None:
    text = " ".join([*QUERIES, *(rule["expr"] for rule in RULES)])
    assert set(re.findall(r"\b(?:replica|fleet):[a-z0-9_]+:[a-z0-9_]+", text)) == set(RECORDED)


@pytest.mark.parametrize("level", ["replica", "fleet"])
def test_load_and_speed_are_recorded_for_each_replica_and_for_the_fleet(level: str) -> None:
    for what in ("requests_running", "requests_waiting", "kv_cache_usage", "output_tokens", "time_to_first_token"):
        assert any(name.startswith(f"{level}:{what}") for name in RECORDED)


@pytest.mark.parametrize("name", ALARMS)
def test_an_alert_says_what_is_seen_and_what_to_do_and_the_page_explains_it(name: str) -> None:
    assert set(ALARMS[name]["annotations"]) == {"summary", "description", "runbook_url"}
    assert ALARMS[name]["labels"]["severity"] in ("critical", "warning")
    assert f"| [`{name}`](runbooks.md#{name.lower()}) |" in (ROOT / "docs/how-to/monitoring.md").read_text()


@pytest.mark.parametrize("name", ALARMS)
def test_the_runbook_of_an_alert_is_a_section_that_says_what_it_means_how_to_see_it_and_what_to_do(name: str) -> None:
    path, _, anchor = ALARMS[name]["annotations"]["runbook_url"].partition("#")
    sections = re.split(r"^## ", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    (found,) = [section for section in sections if section.partition("\n")[0].lower() == anchor]
    assert found.startswith(f"{name}\n")
    assert [word for word in ("**Means**", "**See**", "**Do**") if word not in found] == []


def test_every_section_of_the_runbooks_is_an_alert() -> None:
    page = (ROOT / "docs/how-to/runbooks.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^## (.*)", page, re.MULTILINE)) == sorted(ALARMS)


def test_the_page_explains_no_alert_that_does_not_exist() -> None:
    assert set(re.findall(r"`(Dsv4\w+)`", (ROOT / "docs/how-to/monitoring.md").read_text())) == set(ALARMS)


def test_the_dashboard_shows_what_tells_a_good_replica_from_a_bad_one() -> None:
    for name in ("acceptance_ratio", "progress_age", "dsv4_phase", "requests_waiting", "kv_cache", "first_token"):
        assert any(name in query for query in QUERIES)
    assert [row["title"] for row in ROWS] == ["Fleet", "Replicas"]


def test_the_dashboard_queries_the_selected_source_which_is_ours_by_default() -> None:
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}
    source = next(one for one in DASHBOARD["templating"]["list"] if one["type"] == "datasource")
    provisioned = yaml.safe_load((GRAFANA / "datasource.yml").read_text())["datasources"][0]
    assert (source["name"], source["current"]["value"]) == ("datasource", provisioned["uid"])


def cells(panel: dict[str, Any]) -> Iterator[tuple[int, int]]:
    at = panel["gridPos"]
    return ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))


def test_no_panel_of_the_dashboard_overlaps_another_or_leaves_the_page() -> None:
    taken = [cell for panel in DASHBOARD["panels"] for cell in cells(panel)]
    assert len(taken) == len(set(taken))
    assert {x for x, _ in taken} == set(range(24))
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_filters_by_the_selection(panel: dict[str, Any]) -> None:
    assert panel["type"] in ("stat", "timeseries", "state-timeline")
    assert panel["title"]
    assert panel["description"].endswith(".")
    letters = [target["refId"] for target in panel["targets"]]
    assert letters == sorted(set(letters))
    filters = ['namespace=~"$namespace"']
    filters += ['replica=~"$replica"'] if panel["gridPos"]["y"] > ROWS[1]["gridPos"]["y"] else []
    for target in panel["targets"]:
        assert target["legendFormat"]
        assert all(one in target["expr"] for one in filters)


def promtool(*words: str | Path) -> None:
    program = need("promtool", "PROMTOOL")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_its_configuration_with_the_rules_and_the_key_that_it_names(tmp_path: Path) -> None:
    key = tmp_path / "api-key"
    key.write_text("key\n")
    config = tmp_path / PROMETHEUS.name
    config.write_text(PROMETHEUS.read_text().replace("/run/secrets/metrics-key", str(key)))
    (tmp_path / ALERTS.name).write_text(ALERTS.read_text())
    promtool("check", "config", config)


def test_every_alert_fires_when_it_should_and_keeps_quiet_otherwise() -> None:
    promtool("test", "rules", Path(__file__).with_name("alerts_test.yml"))


@pytest.mark.parametrize("name", ALARMS)
def test_every_alert_is_tried(name: str) -> None:
    tried = yaml.safe_load(Path(__file__).with_name("alerts_test.yml").read_text())["tests"]
    fired = [one["alertname"] for test in tried for one in test["alert_rule_test"] if one["exp_alerts"]]
    assert name in fired


def test_prometheus_reads_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(QUERIES)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


def test_prometheus_shows_the_key_to_replicas_only() -> None:
    jobs = {job["job_name"]: job for job in yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]}
    assert [name for name, job in jobs.items() if "authorization" in job] == ["replica", "vllm"]
    for name in ("replica", "vllm"):
        assert jobs[name]["authorization"] == {"credentials_file": "/run/secrets/metrics-key"}


def test_both_ports_of_a_replica_have_one_name_for_it() -> None:
    jobs = {job["job_name"]: job for job in yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]}
    (relabel,) = jobs["replica"]["relabel_configs"]
    assert jobs["vllm"]["relabel_configs"] == [relabel]
    matches = [re.fullmatch(relabel["regex"], f"10.0.0.3:{port}") for port in (8000, 8001)]
    assert [match and match[1] for match in matches] == ["10.0.0.3", "10.0.0.3"]
    assert relabel["target_label"] == "replica"


DRAWN = [panel for panel in DASHBOARD["panels"] if panel["title"] != "Drafts accepted by position, by replica"]
"""The picture is older than that panel; monitoring.md says so."""


def test_drafts_are_shown_by_position_with_their_floors() -> None:
    (panel,) = (panel for panel in PANELS if panel not in DRAWN)
    shares, floors = (target["expr"] for target in panel["targets"])
    assert shares.startswith('dsv4_draft_position_acceptance_ratio{source="live",')
    assert floors.startswith("min by (position) (dsv4_draft_position_floor{")
    assert all("{{position}}" in target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("panel", DRAWN, ids=lambda panel: panel["title"])
def test_the_picture_in_the_docs_has_every_panel(panel: dict[str, Any]) -> None:
    picture = ROOT / "docs/how-to/monitoring.svg"
    assert f">{panel['title']}</text>" in picture.read_text(encoding="utf-8")
    assert picture.stat().st_size < 300_000
