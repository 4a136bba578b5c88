"""A line of the log as a JSON object, and back."""

from __future__ import annotations

import json
import re

from dsv4_serve.entrypoint import json_log


def test_a_line_is_one_object_with_the_time_in_utc(monkeypatch) -> None:
    monkeypatch.setattr(json_log.PHASE, "current", lambda: "ready")
    text = json_log.line("vllm", "ERROR", "a\nb\ud800", process="EngineCore", logger="", exit_status=0, cause=None)
    assert "\n" not in text
    record = json.loads(text)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("time"))
    assert record == {
        "level": "ERROR", "source": "vllm", "message": "a\nb\ud800", "phase": "ready", "process": "EngineCore",
        "exit_status": 0,
    }  # fmt: skip


def test_people_read_it_as_text() -> None:
    text = json_log.line("vllm", "INFO", "one\ntwo", process="EngineCore", logger="core.py:7")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \S+ INFO vllm EngineCore core.py:7: one\ntwo", json_log.readable(text))
    request = json_log.line("vllm", "INFO", "request", event="request", name="bob", generated_tokens=7)
    assert json_log.readable(request).endswith(' INFO vllm: request event="request" name="bob" generated_tokens=7')
    for other in ("plain", '{"time": "x"}', '{"time": "broken', '{"a": 1}'):
        assert json_log.readable(other) is other


def test_a_request_in_the_usage_of_keys_has_fields_of_its_own() -> None:
    text = '{"event": "request", "time": "x", "name": "bob", "path": "/v1/completions", "status": 200, "whole": false, "generated_tokens": 0}'
    fields = {
        "event": "request",
        "name": "bob",
        "path": "/v1/completions",
        "status": 200,
        "whole": False,
        "generated_tokens": 0,
    }
    assert json_log.event(text) == fields
    assert json_log.event(text[:-1] + ', "level": "ERROR"}') == fields
    assert json_log.event(text[:-1]) == json_log.event('{"event": "other"}') == json_log.event("a line") == {}
    assert fields.items() <= json.loads(json_log.line("vllm", "INFO", "request", **fields)).items()
