import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from dsv4_serve.demo import llama

WRITE = "import sys, pathlib; from dsv4_serve.demo import llama; llama.write_checkpoint(pathlib.Path(sys.argv[1]))"


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


def test_every_word_of_the_answer_is_a_token_of_its_own():
    words = (*llama.SPECIALS, *llama.NUMBERS, *llama.VERSE)
    assert len(set(words)) == len(words)
    assert len(llama.vocabulary()) == 256 + len(words) <= llama.SEEN


def test_every_token_has_a_successor():
    logits = llama.next_token_logits(len(llama.vocabulary()))
    best = logits[:, : len(llama.vocabulary())].max(axis=0)
    assert np.all(best == llama.NEXT_WORD)


def test_the_context_holds_the_answer_and_a_question(tmp_path):
    config = json.loads((llama.write_checkpoint(tmp_path) / "config.json").read_text())
    assert config["max_position_embeddings"] > llama.ANSWER_TOKENS + 1000
