import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dsv4_serve.demo import llama, llama_words
from dsv4_serve.demo.llama_words import ARGUMENT, CALLS, NUMBERS, STRING, THOUGHT, VERSE, token_id, vocabulary
from dsv4_serve.demo.tokenizer import BOS, DSML, END_OF_THOUGHT, EOS, MARKS, THINK, TOOL_RESULT

WRITE = "import sys, pathlib; from dsv4_serve.demo import llama; llama.write_checkpoint(pathlib.Path(sys.argv[1]))"
ANSWER = [NUMBERS[0], *VERSE]


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def write_in_a_process_of_its_own(folder: Path, seed: str) -> dict[str, str]:
    subprocess.run([sys.executable, "-c", WRITE, folder], check=True, env={**os.environ, "PYTHONHASHSEED": seed})
    return digests(folder)


def test_two_processes_write_the_same_bytes(tmp_path):
    first = write_in_a_process_of_its_own(tmp_path / "first", "1")
    assert "model.safetensors" in first
    assert first == write_in_a_process_of_its_own(tmp_path / "second", "2")


def test_writing_again_mends_a_damaged_checkpoint(tmp_path):
    before = digests(llama.write_checkpoint(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"half a file")
    assert digests(llama.write_checkpoint(tmp_path)) == before


def test_every_word_is_a_token_of_its_own():
    words = (*MARKS, *NUMBERS, *VERSE, *THOUGHT, *llama_words.CALL)
    assert len(set(words)) == len(words)
    assert len(vocabulary()) == 256 + len(words) <= llama.SEEN


def test_every_token_has_a_successor():
    logits = llama.next_token_logits(len(vocabulary()))
    best = logits[:, : len(vocabulary())].max(axis=0)
    assert np.all(best == llama.NEXT_WORD)


def test_answers_are_greedy_by_default_and_the_context_holds_a_coding_agents_prompt(tmp_path):
    llama.write_checkpoint(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["temperature"] == 0
    assert json.loads((tmp_path / "config.json").read_text())["max_position_embeddings"] > 100_000


@pytest.fixture(scope="module")
def weights():
    return llama.tensors()


def continued(weights, tokens: list[str], count: int, forbidden: tuple[str, ...] = ()) -> list[str]:
    """Compute the model with numpy, in exact positions, and return the words that greedy decoding adds."""
    ids = [token_id(token) for token in tokens]
    names = list(vocabulary())
    head = {name: weights[f"model.layers.0.self_attn.{name}_proj.weight"].astype(np.float64) for name in "qkvo"}
    for _ in range(count):
        scores = head["q"][:, ids[-1]] @ head["k"][:, ids] / llama.HEAD_DIM**0.5
        shares = np.exp(scores - scores.max())
        state = head["o"] @ (head["v"][:, ids] @ shares) / shares.sum()
        state[ids[-1]] += 1
        logits = weights["lm_head.weight"] @ (state / np.linalg.norm(state))
        logits[[token_id(token) for token in forbidden]] = -np.inf
        ids.append(int(logits.argmax()))
    spelled = {token_id(word): word for word in (*MARKS, *NUMBERS, *VERSE, *THOUGHT, *llama_words.CALL, *'</"}')}
    return [spelled.get(n, names[n]) for n in ids[len(tokens) :]]


LONG = 5000 * ["x"]
TOOLS = [DSML, "a", DSML]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (["H", "i"], ANSWER),
        ([THINK], [*THOUGHT, END_OF_THOUGHT, *ANSWER]),
        ([END_OF_THOUGHT], [*ANSWER, NUMBERS[1], VERSE[0]]),
        ([*TOOLS, END_OF_THOUGHT], [CALLS]),
        ([*TOOLS, THINK], [*THOUGHT, END_OF_THOUGHT, CALLS]),
        ([*TOOLS, TOOL_RESULT, "a", END_OF_THOUGHT], [*ANSWER, NUMBERS[1]]),
        ([*TOOLS, END_OF_THOUGHT, *NUMBERS[:7], VERSE[-1]], [NUMBERS[7]]),
        ([END_OF_THOUGHT, *NUMBERS, VERSE[-1]], [EOS]),
        ([llama_words.END_OF_CALLS], [EOS]),
        ([">"], [ARGUMENT]),
        (['"'], [STRING]),
    ],
)
@pytest.mark.parametrize("before", [[BOS], [BOS, *LONG]], ids=["short", "long"])
def test_a_prompt_leads_to(weights, prompt, before, expected):
    assert continued(weights, [*before, *prompt], len(expected)) == expected


@pytest.mark.parametrize(
    ("last", "forbidden", "expected"),
    [
        (ARGUMENT, (EOS,), llama_words.END_OF_ARGUMENT),
        (STRING, (EOS,), '"'),
        ("\n", (NUMBERS[0], llama_words.END_OF_ARGUMENT), llama_words.END_OF_CALLS),
        ("<", (NUMBERS[0], llama_words.END_OF_ARGUMENT, llama_words.END_OF_CALLS), "/"),
        ("{", (NUMBERS[0], llama_words.END_OF_ARGUMENT, llama_words.END_OF_CALLS, "/"), "}"),
    ],
)
def test_where_a_grammar_forbids_the_first_choice_the_end_is_near(weights, last, forbidden, expected):
    assert continued(weights, [BOS, *TOOLS, last], 1, forbidden) == [expected]
