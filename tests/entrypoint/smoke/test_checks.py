"""Every check of `dsv4 smoke` against a replica over real HTTP: sound, and with each fault that the check is there for."""

import json
import logging

import pytest

from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.client.errors import Unreachable
from dsv4_serve.entrypoint.errors import ConfigError, UsageError
from dsv4_serve.entrypoint.smoke.command import SmokeSettings, smoke
from dsv4_serve.entrypoint.smoke.run import CHECKS
from tests.entrypoint.smoke import scripted

pytestmark = [pytest.mark.process, pytest.mark.slow]

FAULTS = [
    ("unlisted-name", "models", "not second/name"),
    ("refused-name", "models", "but refuses it"),
    ("empty-chat", "chat", "the answer is empty"),
    ("wrong-answer", "chat", "the answer '41'"),
    ("usage", "chat", "total"),
    ("one-piece", "streaming", "the whole answer arrived in one piece"),
    ("silent", "streaming", "no text arrived"),
    ("unfinished", "streaming", "finish_reason was sent 0 times"),
    ("no-usage", "streaming", "no usage"),
    ("no-done", "streaming", "no [DONE]"),
    ("error-event", "streaming", "EngineCore died"),
    ("stop-ignored", "stop", "with stop string"),
    ("stop-included", "stop", "with stop string"),
    ("nan", "logprobs", "NaN"),
    ("infinite", "logprobs", "infinite"),
    ("thinks-anyway", "thinking-chat", "the answer has reasoning although thinking is off"),
    ("mode-lost", "thinking-high thinking-max", "the mode did not reach the model"),
    ("tags", "thinking-high thinking-max thinking-stream empty-content", ""),
    ("no-content", "thinking-high thinking-max", "no content, and finish_reason stop"),
    ("mixed", "thinking-stream", "reasoning came after content"),
    ("trap", "empty-content", "content 'Nine'"),
    ("no-call", "tool-call", "no tool was called"),
    ("other-tool", "tool-call", "the wrong call was made"),
    ("bad-arguments", "tool-call", "readable arguments"),
    ("ignores-result", "tool-call", "the answer is 'I do not know.'"),
    ("other-stream", "tool-stream tool-parallel", "Elder"),
    ("broken-stream", "tool-stream tool-tags tool-ref tool-parallel tool-gaps", "no JSON object"),
    ("leaks", "tool-stream tool-thinking tool-tags tool-ref tool-parallel tool-history", "content has the markup"),
    ("leaks-thought", "tool-thinking", "reasoning has the markup"),
    ("no-thought", "tool-thinking", "a call without reasoning"),
    ("cut-succeeds", "tool-truncated", "without streaming: finish_reason is tool_calls, with water_level('{}')"),
    ("cut-stream-succeeds", "tool-truncated", "streamed: finish_reason is tool_calls"),
    ("cut-leaks", "tool-truncated", "content has the markup"),
    ("one-delta", "tool-gaps", "64 are allowed"),
    (
        "tags-deleted",
        "tool-tags",
        "without streaming, the argument is ' opens a thought and  ends it': tags are missing",
    ),
    ("tags-destroy", "tool-tags", "lacks text"),
    ("ref-text", "tool-ref", "'7' is not an integer"),
    ("same-ids", "tool-parallel", "two calls have the id call-0"),
    ("one-index", "tool-parallel", "names came for the calls [0, 0]"),
    ("drift", "tool-history", "mode chat: the second prompt leaves the first turn at token"),
    ("no-hits", "tool-history", "mode chat: 0 of"),
    ("not-json", "json-schema", "does not match the schema"),
    ("extra-field", "json-schema", "does not match the schema"),
    ("wrong-value", "json-schema", "launched=1896"),
    ("lost-middle", "needles", "not recalled from the middle"),
    ("changes", "parallel", "0% of tokens agree"),
    ("garbled", "parallel", "script-mix"),
    ("noise", "acceptance", "it drafts noise"),
    ("no-drafts", "acceptance", "nothing was drafted"),
    ("no-counters", "acceptance", "no vllm:spec_decode_* counters"),
]


TOOLS = " ".join(name for name in CHECKS if name.startswith("tool-"))
SETTINGS = SmokeSettings(context_share=0.5, seconds=60.0)


def run_smoke(*faults, plan=scripted.PLAN, seconds=60.0, skip=()):
    """Run the command against a replica with these faults; return its outcomes by name, and the replica."""
    with scripted.serving(*faults, plan=plan) as replica:
        report = smoke(Endpoint(replica.url, replica.url), SmokeSettings(0.5, seconds, skip=tuple(skip)))
        assert [one.name for one in report.outcomes] == list(CHECKS)
        return {one.name: one for one in report.outcomes}, report, replica


def verdicts(outcomes, verdict):
    return {name for name, one in outcomes.items() if one.verdict == verdict}


def test_a_sound_replica_passes_every_check():
    outcomes, report, _ = run_smoke()
    assert verdicts(outcomes, "passed") == set(CHECKS), [one for one in outcomes.values() if one.verdict != "passed"]
    assert report.ok


def rounds():
    """Pack the faults into as few replicas as there can be: one fault a check."""
    packed = []
    for fault in FAULTS:
        checks = set(fault[1].split())
        free = [held for held in packed if not any(checks & set(other[1].split()) for other in held)]
        if free:
            free[0].append(fault)
        else:
            packed.append([fault])
    return packed


@pytest.mark.parametrize("faults", rounds(), ids=lambda faults: "+".join(fault for fault, *_ in faults))
def test_each_fault_fails_its_check_and_hides_no_other(faults):
    outcomes, report, _ = run_smoke(*(fault for fault, *_ in faults))
    expected = {name: seen for _, checks, seen in faults for name in checks.split()}
    assert verdicts(outcomes, "failed") == set(expected), outcomes
    assert not verdicts(outcomes, "skipped")
    for name, seen in expected.items():
        assert seen in outcomes[name].seen
        assert outcomes[name].fix
    assert not report.ok


@pytest.mark.parametrize(
    ("fault", "names", "seen"),
    [
        (
            "refuses-calls",
            "tool-stream tool-thinking tool-truncated tool-gaps tool-tags tool-ref tool-parallel tool-history",
            "no call; content is 'I would rather not.', finish_reason stop",
        ),
        ("rewords", "tool-tags", "argument is 'no tags': the model wrote it without the tags"),
        ("short", "tool-gaps", "too few to show a gap"),
        ("one-call", "tool-parallel", "one call only: water_level"),
    ],
)
def test_a_model_that_makes_no_useful_call_is_told_apart_from_a_fault(fault, names, seen):
    outcomes, report, _ = run_smoke(fault)
    assert verdicts(outcomes, "inconclusive") == set(names.split()), outcomes
    assert not verdicts(outcomes, "failed")
    assert all(seen in outcomes[name].seen for name in names.split())
    assert report.ok


def test_a_gap_is_not_judged_without_tokens_in_the_chunks():
    outcomes, _, _ = run_smoke("uncounted")
    assert verdicts(outcomes, "skipped") == {"tool-gaps"}


def test_a_turn_written_in_other_tokens_than_the_tokenizers_is_no_drift():
    outcomes, _, _ = run_smoke("other-tokens")
    assert outcomes["tool-history"].verdict == "passed"


def test_the_second_turn_sends_thought_and_calls_back_and_is_found_in_the_prefix_cache():
    outcomes, _, replica = run_smoke()
    figures = outcomes["tool-history"].figures
    assert figures["chat"]["cached_tokens"] > 0.9 * figures["chat"]["prompt_tokens"]
    back = [
        body["messages"][2]
        for body in replica.bodies
        if "messages" in body and body["messages"][-1]["role"] == "tool" and body.get("cache_salt")
    ]
    assert [one.get("reasoning") for one in back] == [None, "The tool knows."]


def test_reasoning_that_takes_every_token_passes_and_is_reported():
    outcomes, _, _ = run_smoke("long-thought")
    assert outcomes["thinking-max"].verdict == "passed"
    assert "no content yet" in outcomes["thinking-max"].seen


def test_the_trap_of_empty_content_is_explained():
    outcomes, _, _ = run_smoke()
    assert (
        'reads only content shows nothing: read reasoning, allow more tokens, or send chat_template_kwargs {"thinking": false}'
        in (outcomes["empty-content"].seen)
    )


def test_the_long_prompt_has_the_requested_length_and_misses_the_prefix_cache():
    outcomes, _, replica = run_smoke()
    assert outcomes["needles"].figures["share_of_context"] == pytest.approx(0.5, abs=0.02)
    (body,) = [one for one in replica.bodies if "lighthouse" in str(one.get("messages"))]
    assert body["cache_salt"]


def test_acceptance_is_shown_with_the_figure_of_the_same_model_and_draft_tokens():
    outcomes, _, _ = run_smoke()
    assert "prose 80% of 64 (84% on record)" in outcomes["acceptance"].seen
    assert "its card" in outcomes["acceptance"].seen
    more = {**scripted.PLAN, "speculative-config.num_speculative_tokens": 2}
    outcomes, _, _ = run_smoke(plan=more)
    assert "prose 80% of 64 (no figure on record)" in outcomes["acceptance"].seen


def test_a_drafter_that_collapses_after_its_first_token_fails_and_positions_are_shown():
    two = {**scripted.PLAN, "speculative-config.num_speculative_tokens": 2}
    outcomes, _, _ = run_smoke("collapse", plan=two)
    assert "it collapses after position 0" in outcomes["acceptance"].seen
    assert "by position 100%, 0% of 64 drafts" in outcomes["acceptance"].seen
    assert outcomes["acceptance"].figures["prose"]["by_position"] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("faults", "changes", "names", "reason"),
    [
        (["no-tool-parser"], {"tool-call-parser": None}, TOOLS, "served without --tool-call-parser"),
        (["no-tool-parser"], {}, TOOLS, "served without --tool-call-parser"),
        (
            [],
            {"reasoning-parser": None},
            "thinking-chat thinking-high thinking-max thinking-stream empty-content tool-thinking",
            "served without --reasoning-parser",
        ),
        (
            ["no-counters"],
            {"speculative-config.num_speculative_tokens": 0},
            "acceptance",
            "served without draft tokens",
        ),
        (["hidden-metrics"], {}, "acceptance", "counters are unavailable"),
    ],
)
def test_what_a_replica_was_not_configured_for_is_skipped_by_name(faults, changes, names, reason):
    outcomes, report, _ = run_smoke(*faults, plan={**scripted.PLAN, **changes})
    assert verdicts(outcomes, "skipped") == set(names.split())
    assert all(reason in outcomes[name].seen for name in names.split())
    assert report.ok


def test_constructed_weights_may_answer_anything_but_not_in_another_form():
    constructed = {**scripted.PLAN, "model-name": "demo"}
    outcomes, report, _ = run_smoke("wrong-answer", "ignores-result", "wrong-value", plan=constructed)
    assert verdicts(outcomes, "failed") == set()
    assert verdicts(outcomes, "skipped") == {"needles", "tool-tags"}
    assert "constructed weights" in outcomes["needles"].seen
    assert report.ok
    outcomes, _, _ = run_smoke("no-call", "not-json", plan=constructed)
    assert verdicts(outcomes, "failed") == {"tool-call", "json-schema"}


def test_constructed_weights_that_end_no_json_are_skipped():
    outcomes, _, _ = run_smoke("endless-json", plan={**scripted.PLAN, "model-name": "demo-v4"})
    assert outcomes["json-schema"].verdict == "skipped"
    outcomes, _, _ = run_smoke("endless-json")
    assert outcomes["json-schema"].verdict == "failed"


def test_a_hidden_health_server_is_logged_and_hides_no_check(caplog):
    caplog.set_level(logging.INFO)
    outcomes, report, _ = run_smoke(plan=None)
    assert verdicts(outcomes, "failed") == set()
    assert verdicts(outcomes, "passed") == set(CHECKS)
    assert "/plan" in report.unknown
    assert "unknown: " in report.text()
    assert any("So the replica's settings are unknown" in one for one in caplog.messages)


def test_a_model_that_never_thinks_is_no_fault_where_no_plan_says_that_it_should():
    outcomes, report, _ = run_smoke("never-thinks", plan=None)
    thinking = {"thinking-high", "thinking-max", "thinking-stream", "empty-content", "tool-thinking"}
    assert verdicts(outcomes, "skipped") == thinking
    assert report.ok
    outcomes, _, _ = run_smoke("never-thinks")
    assert verdicts(outcomes, "failed") == thinking


def test_a_check_without_end_fails_at_the_deadline_and_what_was_not_begun_fails_too():
    outcomes, report, _ = run_smoke("hangs", seconds=1.0)
    assert outcomes["models"].verdict == "passed"
    assert "not finished within the" in outcomes["chat"].seen
    assert outcomes["acceptance"].seen == "not run: the 1 s of --timeout were used up"
    assert sum(one.seconds for one in report.outcomes) < 3


def test_a_connection_that_breaks_fails_one_check():
    outcomes, _, _ = run_smoke("dies")
    assert verdicts(outcomes, "failed") == {"chat"}
    assert outcomes["chat"].seen.startswith("no answer: ")


def test_checks_can_be_left_out_by_name_and_an_unknown_name_is_refused():
    outcomes, report, _ = run_smoke("lost-middle", skip=["needles"])
    assert outcomes["needles"].seen == "--skip"
    assert report.ok
    with pytest.raises(UsageError, match=r"--skip needle: no such check \(did you mean needles\?\)"):
        run_smoke(skip=["needle"])


def test_a_plan_of_another_version_is_reported_in_one_sentence():
    with pytest.raises(ConfigError, match=r"no setting 'gate\.tomorrow'"):
        run_smoke(plan={**scripted.PLAN, "gate.tomorrow": 1})


def test_without_a_replica_it_reports_one_sentence():
    with pytest.raises(Unreachable, match="no answer"):
        smoke(Endpoint("http://127.0.0.1:9"), SETTINGS)


def test_the_key_is_sent_with_every_request_and_is_in_no_report():
    seen = set()

    class Keyed(scripted.Handler):
        def parse_request(self):
            parsed = super().parse_request()
            seen.add(self.headers["Authorization"])
            return parsed

    with scripted.serving() as replica:
        replica.RequestHandlerClass = Keyed
        report = smoke(Endpoint(replica.url, replica.url, "s3cret"), SETTINGS)
    assert seen == {"Bearer s3cret"}
    assert "s3cret" not in report.text() + report.junit() + json.dumps(report.to_json())


def test_a_name_and_password_in_the_address_are_in_no_report():
    with scripted.serving() as replica:
        report = smoke(Endpoint(replica.url.replace("//", "//me:hidden@"), replica.url), SETTINGS)
    assert report.url == replica.url
    assert "hidden" not in report.text() + report.junit() + json.dumps(report.to_json())
