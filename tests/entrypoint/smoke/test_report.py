"""What `dsv4 smoke` prints, writes and exits with, as a real process; and what its report can hold."""

import json
from xml.etree import ElementTree as ET

from dsv4_serve.entrypoint.smoke.outcome import Outcome
from dsv4_serve.entrypoint.smoke.report import SmokeReport
from tests.entrypoint.smoke import scripted

SOUND = Outcome("passed", "well", figures={"tokens": 3}, name="chat", seconds=1.25)
BROKEN = Outcome("failed", "no \x00 tool <was> called", "serve with & parser", name="tool-call")
ABSENT = Outcome("skipped", "not here", name="needles")


def test_a_failed_check_has_its_remedy_beneath_it():
    text = SmokeReport("http://h:1", "m", (SOUND, BROKEN, ABSENT)).text().splitlines()
    assert text[2].startswith("tool-call")
    assert text[3] == "    fix: serve with & parser"
    assert text[-1] == "m at http://h:1: 1 passed, 1 failed, 1 skipped in 1 s"


def test_junit_counts_what_failed_and_was_skipped_and_is_xml_whatever_a_model_said():
    root = ET.fromstring(SmokeReport("http://h:1", "m", (SOUND, BROKEN, ABSENT)).junit())
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped"), suite.get("errors")) == (
        "3",
        "1",
        "1",
        "0",
    )
    (failure,) = suite.findall("testcase[@name='tool-call']/failure")
    (skipped,) = suite.findall("testcase[@name='needles']/skipped")
    assert (failure.get("message"), skipped.get("message")) == ("no  tool <was> called", "not here")


def test_nothing_but_skipped_checks_is_no_pass():
    assert not SmokeReport("http://h:1", "m", (ABSENT,)).ok
    assert SmokeReport("http://h:1", "m", (SOUND, ABSENT)).ok


def test_the_command_prints_a_table_keeps_a_result_and_writes_junit(dsv4, tmp_path):
    with scripted.serving() as replica:
        words = [
            "--url",
            f"{replica.url}/v1",
            "--health",
            replica.url,
            "--out",
            str(tmp_path),
            "--junit",
            str(tmp_path / "j.xml"),
        ]
        done = dsv4("smoke", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"deepseek-v4-flash at {replica.url}: 23 passed in ")
    (result,) = (tmp_path / "smoke").iterdir()
    assert result.name.startswith("w4a16-128k-h200-")
    assert str(result) in done.stderr
    kept = json.loads(result.read_text())
    assert kept["kind"] == "smoke"
    assert kept["ok"] is True
    assert kept["replica"]["choices"]["model-name"] == "w4a16"
    assert kept["checks"][-1]["figures"]["prose"] == {
        "drafted": 64,
        "accepted": 51,
        "drafts": 64,
        "by_position": [0.7969],
        "on_record": 0.837,
    }
    assert ET.parse(tmp_path / "j.xml").getroot().get("tests") == "23"


def test_a_failed_check_is_exit_status_1_and_json_says_which(dsv4, tmp_path):
    with scripted.serving("no-call") as replica:
        done = dsv4("smoke", "--url", replica.url, "--health", replica.url, "--out", str(tmp_path), "--format", "json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert [one["name"] for one in told["checks"] if one["verdict"] == "failed"] == ["tool-call"]


def test_without_a_replica_it_reports_one_sentence_and_exits_with_69(dsv4, tmp_path):
    (tmp_path / "j.xml").write_text("<testsuites name='of an earlier run'/>")
    out = tmp_path / "out"
    done = dsv4("smoke", "--url", "http://127.0.0.1:9", "--out", str(out), "--junit", str(tmp_path / "j.xml"))
    assert done.returncode == 69
    assert done.stderr.count("\n") == 1
    assert not done.stdout
    assert not out.exists()
    root = ET.parse(tmp_path / "j.xml").getroot()
    assert (root.get("errors"), root.get("failures")) == ("1", "0")
    (error,) = root.findall("testsuite/testcase[@name='replica']/error")
    assert str(error.get("message")) in done.stderr


def test_a_wrong_argument_is_reported_in_one_sentence_and_exits_with_64(dsv4):
    for words in (
        ["--context-share", "2"],
        ["--streams", "many"],
        ["--timeout", "-1"],
        ["--timeout", "abc"],
        ["--skip", "tea"],
        ["--tea"],
    ):
        done = dsv4("smoke", *words)
        assert done.returncode == 64, words
        assert done.stderr.count("\n") == 1
