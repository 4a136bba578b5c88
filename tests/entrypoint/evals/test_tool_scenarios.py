"""The scenarios of `dsv4 eval tools`: valid schemas, each solvable, and none that a wrong answer solves."""

from collections import Counter

import jsonschema
import pytest

from dsv4_serve.entrypoint.evals import tool_scenarios, tool_score
from dsv4_serve.entrypoint.evals.tool_score import example, play
from tests.entrypoint.evals.perfect import perfect, turn
from tests.support.each import each

TOOLS, SCENARIOS = tool_scenarios.read()
BY_NAME = each("scenario", SCENARIOS, ids=lambda one: one.name)


def test_there_are_enough_of_each_kind():
    assert len(SCENARIOS) >= 60
    assert set(Counter(one.kind for one in SCENARIOS)) == set(tool_scenarios.KINDS)
    assert min(Counter(one.kind for one in SCENARIOS).values()) >= 5
    assert len({one.name for one in SCENARIOS}) == len(SCENARIOS)


@each("name", TOOLS)
def test_every_schema_is_valid_and_its_tool_is_used(name):
    parameters = TOOLS[name]["function"]["parameters"]
    jsonschema.Draft202012Validator.check_schema(parameters)
    assert parameters["required"]
    assert TOOLS[name]["function"]["description"]
    assert any(call.name == name for one in SCENARIOS for step in one.steps for call in step)


@BY_NAME
def test_expected_calls_are_of_declared_tools_and_follow_their_schemas(scenario):
    assert set(scenario.tools) <= set(TOOLS)
    for step in scenario.steps:
        for call in step:
            assert call.name in scenario.tools
            jsonschema.validate(example(call.arguments), TOOLS[call.name]["function"]["parameters"])


@BY_NAME
def test_a_text_that_has_to_be_exact_is_in_the_question(scenario):
    def exact(value):
        if isinstance(value, dict) and "$text" in value:
            yield value["$text"]
        elif isinstance(value, dict):
            for one in value.values():
                yield from exact(one)

    for step in scenario.steps:
        for call in step:
            assert all(text in scenario.ask for text in exact(call.arguments))


@BY_NAME
def test_a_perfect_answer_scores_in_full(scenario):
    replies = perfect(scenario)
    for count in range(len(replies)):
        assert not play(scenario, replies[:count]).done
    played = play(scenario, replies)
    assert (played.done, played.protocol, played.task) == (True, "", "")


@BY_NAME
def test_a_wrong_answer_does_not(scenario):
    if not scenario.steps:
        name = scenario.tools[0]
        assert play(scenario, [turn((name, {}))]).task.startswith("a call that nothing asks for")
        return
    assert "it ended without calling" in play(scenario, [turn(content="Done.")]).task
    first = scenario.steps[0][0]
    for key in first.arguments:
        wrong = {**example(first.arguments), key: "something else"}
        assert play(scenario, [turn((first.name, wrong))]).task.startswith("the call"), key
        lacking = {name: value for name, value in example(first.arguments).items() if name != key}
        assert play(scenario, [turn((first.name, lacking))]).task.startswith("the call"), key


@BY_NAME
def test_a_right_call_in_the_wrong_form_is_a_fault_of_the_protocol(scenario):
    for reply in (
        turn((scenario.tools[0], {}), content="<｜DSML｜tool_calls>"),
        turn((scenario.tools[0], {}), finish="stop"),
        turn(("nowhere", {})),
    ):
        played = play(scenario, [reply])
        assert played.done
        assert played.protocol
        assert played.task


def named(name):
    (one,) = [one for one in SCENARIOS if one.name == name]
    return one


def test_calls_of_one_step_may_come_one_after_the_other_unless_they_belong_together():
    scenario = named("three-tools")
    find, look, create = (turn(call) for call in _calls(scenario))
    assert play(scenario, [look, find, create, turn(content="Done.")]).task == ""
    both = named("two-cities")
    assert "missing in the turn" in play(both, [turn(_calls(both)[0])]).task


def _calls(scenario):
    return [(call.name, example(call.arguments)) for step in scenario.steps for call in step]


def test_the_history_has_calls_results_and_the_thought():
    scenario = named("contact-then-mail")
    first = turn(_calls(scenario)[0], reasoning="Who is that?")
    user, assistant, tool = play(scenario, [first]).messages
    assert user == {"role": "user", "content": scenario.ask}
    assert assistant["reasoning"] == "Who is that?"
    assert assistant["tool_calls"] == first.tool_calls
    assert tool == {"role": "tool", "tool_call_id": "call-0", "content": '{"email": "bq@example.org"}'}


def test_a_cut_turn_and_an_endless_one_are_of_the_task():
    scenario = named("contact-then-mail")
    assert play(scenario, [turn(content="I", finish="length")]) == tool_score.Play(
        play(scenario, []).messages, done=True, task="turn 1 was cut"
    )
    assert play(named("plain-question"), [turn(content="Madrid")]).task == "the answer lacks Lisbon: 'Madrid'"
    assert play(scenario, [turn(_calls(scenario)[0])], ["an id was sent twice"]).protocol == "an id was sent twice"


@pytest.mark.parametrize(
    ("expected", "right", "wrong"),
    [
        ("Oslo", [" oslo "], ["Bergen", 1, None]),
        (7, [7, 7.0], [8, "7", True]),
        (True, [True], [1, "true", False]),
        ({"$null": True}, [None], ["null", 0, False]),
        ({"$text": "a B"}, ["a B"], ["a b", "a B "]),
        ({"$contains": ["one", "two"]}, ["Two and one"], ["one"]),
        ({"$any-contains": ["one", "two"]}, ["only two"], ["three"]),
        ({"$any-of": ["docs", "docs/"]}, ["docs/"], ["doc"]),
        ({"$least": 3}, ["abc"], ["ab", 300]),
        ([1, 2], [[1, 2]], [[2, 1], [1], "12"]),
        ({"a": {"b": 1}}, [{"a": {"b": 1, "c": 2}}], [{"a": {}}, {"a": 1}, {}]),
        ([], [[]], [[1], None]),
    ],
)
def test_rules(expected, right, wrong):
    assert all(tool_score.matches(expected, value) for value in right)
    assert not any(tool_score.matches(expected, value) for value in wrong)
    assert tool_score.matches(expected, example(expected))
