"""A model that does everything right in the scenarios of `dsv4 eval tools`."""

import json

from dsv4_serve.entrypoint.client.answers import Reply
from dsv4_serve.entrypoint.evals.tool_score import example


def turn(*calls, content="", finish=None, reasoning=""):
    made = [
        {"id": f"call-{n}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for n, (name, arguments) in enumerate(calls)
    ]
    return Reply(content, reasoning, finish or ("tool_calls" if calls else "stop"), 9, 9, 18, made)


def perfect(scenario):
    """Return the turns of a model that does everything right."""
    answer = " ".join(part if isinstance(part, str) else part[0] for part in scenario.answer) or "Done."
    steps = [[(call.name, example(call.arguments)) for call in step] for step in scenario.steps]
    return [*(turn(*step) for step in steps), turn(content=answer)]
