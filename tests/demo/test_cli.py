"""The demo as people run it: a real `dsv4 serve`, real vLLM on CPU, what it prints typed as it stands, Ctrl-C."""

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from dsv4_serve.demo import cli, llama
from dsv4_serve.entrypoint.client import local_replica
from tests.support.patience import slowness
from tests.support.running_demo import COMMAND, PATIENT, SILENT, Demo

TOOL = {
    "name": "water_level",
    "parameters": {
        "type": "object",
        "required": ["station", "days"],
        "properties": {"station": {"type": "string"}, "days": {"type": "integer"}, "unit": {"type": "string"}},
    },
}
TOOLS: Any = [{"type": "function", "function": TOOL}]
THINKING_OFF = {"chat_template_kwargs": {"thinking": False}}


def typed(line: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    return subprocess.run(
        line, shell=True, cwd=root, capture_output=True, text=True, timeout=300 * slowness(), check=False
    )


def chat(demo: Demo, **options: Any) -> Any:
    from openai import OpenAI  # not at the top: half a second in every process of a run

    with OpenAI(base_url=f"{demo.url}/v1", api_key="none") as client:
        messages = options.pop("messages", [{"role": "user", "content": "Und auf Deutsch? ß €"}])
        reply: Any = client.chat.completions.create(model="demo", messages=messages, **options)
        return list(reply) if "stream" in options else reply


@pytest.mark.slow
def test_the_demo_answers_and_drafts(running_demo):
    assert f"({llama.REASONING})\n{llama.ANSWER}" in running_demo.printed
    assert "98 of 105 draft tokens accepted" in running_demo.printed
    assert "The answer is the known one." in running_demo.printed


@pytest.mark.slow
def test_the_printed_request_works_as_it_stands(running_demo):
    message = json.loads(typed(running_demo.suggestion("chat/completions")).stdout)["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == (llama.REASONING, llama.ANSWER)
    assert "startupz check passed" in typed(running_demo.suggestion("startupz")).stdout


UNFIT = {"needles", "tool-gaps", "tool-tags", "tool-parallel"}


@pytest.mark.slow
def test_the_printed_smoke_tests_pass_and_skip_what_the_demo_cannot_do(running_demo, tmp_path):
    done = typed(f"{running_demo.suggestion('dsv4 smoke')} --format json --out {tmp_path} --timeout 900")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
    assert {name: one["verdict"] for name, one in found.items() if one["verdict"] != "passed"} == dict.fromkeys(
        UNFIT, "skipped"
    )
    assert "100% of tokens agree between answers alone and 4 at once" in found["parallel"]["seen"]
    prose = found["acceptance"]["figures"]["prose"]
    assert prose["accepted"] > 0.9 * prose["drafted"]
    (result,) = (tmp_path / "smoke").iterdir()
    assert json.loads(result.read_text())["replica"]["versions"]["vllm"]


@pytest.mark.slow
def test_the_printed_bench_measures_and_keeps_a_result(running_demo, tmp_path):
    small = "--batch 4 --input 16 --output 8 --requests-per-batch 2"
    done = typed(f"{running_demo.suggestion('dsv4 bench')} {small} --out {tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = (tmp_path / "bench").iterdir()
    (row,) = json.loads(result.read_text())["rows"]
    assert row["batch"] == 4
    assert row["output_tokens_per_second"] > 0


@pytest.mark.slow
def test_eval_tells_the_demos_sound_protocol_from_its_senseless_calls(running_demo, tmp_path):
    command = running_demo.suggestion("dsv4 smoke").replace("dsv4 smoke", "dsv4 eval tools")
    done = typed(f"{command} --limit 14 --out {tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"  (protocol|task) +(\d+) of (\d+)", done.stdout) == [
        ("protocol", "28", "28"),
        ("task", "0", "28"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [None, 0.3, 1])
def test_a_temperature_changes_no_answer(running_demo, temperature):
    options = {} if temperature is None else {"temperature": temperature, "top_p": 0.9, "extra_body": {"top_k": 20}}
    assert chat(running_demo, **options).choices[0].message.content == llama.ANSWER


@pytest.mark.slow
@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_a_question_with_tools_gets_a_call_and_its_result_an_answer(running_demo, thinking, stream):
    mode = {} if thinking else {"extra_body": THINKING_OFF}
    call: dict[str, Any]
    if stream:
        deltas = [one.choices[0].delta for one in chat(running_demo, tools=TOOLS, stream=True, **mode) if one.choices]
        calls = [call for delta in deltas for call in delta.tool_calls or []]
        arguments = "".join(call.function.arguments or "" for call in calls)
        call = {"id": calls[0].id, "function": {"name": calls[0].function.name, "arguments": arguments}}
        reasoning = "".join(getattr(delta, "reasoning", None) or "" for delta in deltas)
    else:
        reply = chat(running_demo, tools=TOOLS, **mode).choices[0]
        assert reply.finish_reason == "tool_calls"
        (call,) = [call.model_dump() for call in reply.message.tool_calls]
        reasoning = getattr(reply.message, "reasoning", None) or ""
    assert reasoning == (llama.REASONING if thinking else "")
    assert call["function"]["name"] == "water_level"
    assert json.loads(call["function"]["arguments"]) == {"station": "constructed", "days": 1}
    messages = [
        {"role": "user", "content": "How high is it?"},
        {"role": "assistant", "tool_calls": [{**call, "type": "function"}]},
        {"role": "tool", "tool_call_id": call["id"], "content": "3.74"},
    ]
    back = chat(running_demo, messages=messages, tools=TOOLS, **mode).choices[0]
    assert (back.message.content, back.finish_reason) == (llama.ANSWER, "stop")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "name"),
    [({"tool_choice": "required"}, "water_level"), ({"tool_choice": "none"}, None)],
)
def test_the_choice_of_tools_is_kept(running_demo, options, name):
    message = chat(running_demo, tools=TOOLS, **options).choices[0].message
    assert [call.function.name for call in message.tool_calls or []] == ([name] if name else [])
    assert bool(message.content) == (name is None)


@pytest.mark.slow
def test_json_by_a_schema_is_ended(running_demo):
    part = {"type": "object", "required": ["n"], "properties": {"n": {"type": "array", "items": {"type": "number"}}}}
    fields = {"name": {"type": "string"}, "part": part, "kind": {"enum": ["b", "a"]}, "ok": {"type": "boolean"}}
    schema = {"type": "object", "required": list(fields), "properties": fields, "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "ship", "schema": schema}}
    content = chat(running_demo, response_format=form).choices[0].message.content
    assert json.loads(content) == {"name": "demo", "part": {"n": []}, "kind": "a", "ok": False}


@pytest.mark.slow
def test_a_port_that_is_taken_is_replaced_and_a_server_that_is_not_ready_in_time_is_stopped(tmp_path):
    with socket.socket() as holder:
        holder.bind((local_replica.LOCAL, 0))
        holder.listen()
        port = holder.getsockname()[1]
        command = [*COMMAND, "--check", "--folder", str(tmp_path), "--port", str(port), "--limit", "0"]
        demo = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300 * slowness())
    assert demo.returncode == 1
    assert re.fullmatch(r"error: the replica is not ready after 0 s: .* its log is \S+\n", demo.stderr)
    used = re.search(rf"{port} is taken; using (\d+)", demo.stdout)
    assert used
    serving = [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("PORT") == used[1]]
    assert not serving


def test_a_folder_that_cannot_be_written_is_reported_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    demo = subprocess.run([*COMMAND, "--folder", str(tmp_path / "file")], capture_output=True, text=True, check=False)
    assert demo.returncode == 1
    assert re.fullmatch(r"error: .*Not a directory.* --folder names another folder\n", demo.stderr)


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_an_invalid_port_is_refused(port, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--port", port])
    assert ended.value.code == 2
    assert "--port" in capsys.readouterr().err


@pytest.mark.deep
@pytest.mark.slow
@pytest.mark.skipif(
    "avx512_bf16" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"),
    reason="vLLM's CPU wheel has DeepSeek-V4's kernels for x86 with AVX512_BF16 only",
)
def test_the_demo_of_deepseek_v4_gives_every_token_and_its_draft_head_is_reported(tmp_path):
    command = [
        *COMMAND,
        "--profile",
        "demo-v4",
        "--check",
        "--folder",
        str(tmp_path),
        "--port",
        "8300",
        "--limit",
        "1800",
    ]
    # prompts take seconds: a gate of half as many tokens, no questions beside it, and nobody to wait for at the end
    env = os.environ | PATIENT | SILENT | {"DSV4_GATE_TOKENS": "4", "DSV4_SUPERVISE_DRAIN_WAIT": "0"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "draft gate: 100% of " in done.stdout
    assert "The answer is the known one." in done.stdout
