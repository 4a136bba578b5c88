"""What the smoke test takes from vLLM 0.32.0's source is still there: thinking modes, the name of reasoning, refusals."""

import importlib.util
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.smoke import structure
from dsv4_serve.entrypoint.smoke.data import prompts

SPEC = importlib.util.find_spec("vllm")
pytestmark = pytest.mark.skipif(SPEC is None, reason="vLLM is not installed beside this interpreter")


def source(path: str) -> Path:
    assert SPEC
    assert SPEC.submodule_search_locations
    return Path(SPEC.submodule_search_locations[0], path)


def rendered(mode: str, effort: str | None) -> str:
    """Render the question with vLLM's own encoder, which imports nothing else of vLLM's."""
    spec = importlib.util.spec_from_file_location("encoding", source("tokenizers/deepseek_v4_encoding.py"))
    assert spec
    assert spec.loader
    encoder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(encoder)
    question = [{"role": "user", "content": prompts()["thinking"]["question"]}]
    return encoder.encode_messages(question, thinking_mode=mode, reasoning_effort=effort)


def test_every_mode_that_thinks_makes_the_prompt_longer():
    chat, high, most = rendered("chat", None), rendered("thinking", "high"), rendered("thinking", "max")
    assert chat.endswith("</think>")
    assert high.endswith("<think>")
    assert most.endswith("<think>")
    assert len(chat) + 300 < len(high) < len(most)


def test_the_request_names_the_mode_as_vllm_reads_it():
    tokenizer = source("tokenizers/deepseek_v4.py").read_text(encoding="utf-8")
    for word in ('kwargs.get("thinking")', 'kwargs.get("reasoning_effort")', '"max"', '"high"'):
        assert word in tokenizer
    protocol = source("entrypoints/openai/chat_completion/protocol.py").read_text(encoding="utf-8")
    assert "reasoning: str | None" in protocol
    assert 'extra_kwargs["enable_thinking"] = self.reasoning_effort != "none"' in protocol


def test_the_refusal_of_tools_reads_as_it_did():
    renderer = source("renderers/online_renderer.py").read_text(encoding="utf-8")
    assert structure.NO_PARSER in renderer
