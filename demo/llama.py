"""
Write a tiny Llama checkpoint that gives one known answer, and thinks and calls tools where DeepSeek-V4 would.

Nothing is trained. Every token is one axis of the hidden state, and `lm_head` holds the table "after this token comes
that one" (`llama_words.py`), so greedy decoding walks a chain of words. Two places need more than the last token, and
one attention head reads it from the context: which verse number follows the last word of a verse, and whether to call
a tool, which it does when the prompt has tools and no result of one. The repeated verses are what n-gram speculation
drafts from.

Any prompt leads to the first word, so every question has the same answer. The files are identical everywhere.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from .llama_words import (
    ANSWER,
    ANSWER_TOKENS,
    CALLS,
    NUMBERS,
    QUESTION,
    REASONING,
    SHORTEST,
    VERSE,
    choices,
    token_id,
    vocabulary,
)
from .tokenizer import BOS, DSML, END_OF_THOUGHT, EOS, MARKS, TOOL_RESULT, write_text_files

__all__ = ["ANSWER", "ANSWER_TOKENS", "QUESTION", "REASONING", "write_checkpoint"]

HIDDEN = 512  # axes: one per token, then from SEEN on one per verse number that was written, then TOOLS
SEEN = 384
TOOLS = SEEN + len(NUMBERS)
HEAD_DIM = 64
MAX_POSITIONS = 131_072
ROPE_THETA = 1e9
UNTURNED = (
    HEAD_DIM // 2 - 1
)  # the slowest RoPE pair: MAX_POSITIONS turn it by 0.25 mrad, so its score does not depend on distance
UNIT_NORM = HIDDEN**-0.5  # RMSNorm with this weight leaves a one-hot state as it is

# Attention sees the highest of these alone; 24 outweighs 131,072 other tokens by 200,000 to 1.
TOOLS_ATTENTION, RESULT_ATTENTION, NUMBER_ATTENTION = 24.0, 48.0, 72.0

# Logits. The chain outweighs the head but after the last word of a verse, where the smallest gap is
# NEXT_NUMBER / len(NUMBERS), and after the thought.
NEXT_WORD = 1024.0
SECOND_CHOICE = 1000.0
NO_CALL = 896.0
CALL = 256.0
NEXT_NUMBER = 256.0
END_SOON = 800.0

Tensor = NDArray[np.float32]


def tensors() -> dict[str, Tensor]:
    """The checkpoint's tensors by their Hugging Face names."""
    vocab_size = len(vocabulary())
    layer = "model.layers.0."
    unit_norm = np.full(HIDDEN, UNIT_NORM, np.float32)
    return {
        "model.embed_tokens.weight": np.eye(vocab_size, HIDDEN, dtype=np.float32),
        **attention(layer + "self_attn."),
        layer + "input_layernorm.weight": unit_norm,
        layer + "post_attention_layernorm.weight": unit_norm,
        layer + "mlp.gate_proj.weight": np.zeros((HEAD_DIM, HIDDEN), np.float32),
        layer + "mlp.up_proj.weight": np.zeros((HEAD_DIM, HIDDEN), np.float32),
        layer + "mlp.down_proj.weight": np.zeros((HIDDEN, HEAD_DIM), np.float32),
        "model.norm.weight": unit_norm,
        "lm_head.weight": next_token_logits(vocab_size),
    }


def attention(prefix: str) -> dict[str, Tensor]:
    """
    One head that reads the context.

    It writes on the axes from SEEN the share of each verse number; before there is one, 1 on TOOLS if tools are given.
    """
    q, k, v = (np.zeros((HEAD_DIM, HIDDEN), np.float32) for _ in range(3))
    out = np.zeros((HIDDEN, HEAD_DIM), np.float32)
    numbers, order = [token_id(number) for number in NUMBERS], np.arange(len(NUMBERS))
    q[UNTURNED] = 1
    scores = {token_id(DSML): TOOLS_ATTENTION, token_id(TOOL_RESULT): RESULT_ATTENTION}
    for token, score in {**scores, **dict.fromkeys(numbers, NUMBER_ATTENTION)}.items():
        k[UNTURNED, token] = score * HEAD_DIM**0.5
    v[order, numbers] = 1
    v[len(order), token_id(DSML)] = 1
    out[SEEN + order, order] = 1
    out[TOOLS, len(order)] = 1
    return {
        prefix + "q_proj.weight": q,
        prefix + "k_proj.weight": k,
        prefix + "v_proj.weight": v,
        prefix + "o_proj.weight": out,
    }


def next_token_logits(vocab_size: int) -> Tensor:
    """`lm_head`: columns are the current token and what the head saw, rows the token that follows."""
    logits = np.zeros((vocab_size, HIDDEN), np.float32)
    numbers = [token_id(number) for number in NUMBERS]
    logits[:, :vocab_size] = -np.arange(vocab_size)[:, None]  # where nothing is preferred: the first in the alphabet
    logits[[token_id(space) for space in " \t\r\n"], :vocab_size] -= vocab_size
    for place, token in enumerate(SHORTEST):
        logits[token_id(token), :vocab_size] = END_SOON - 10 * place
    for here in vocabulary().values():
        logits[numbers[0], here] = NEXT_WORD
    for last, following in choices().items():
        logits[numbers[0], token_id(last)] = 0
        for preference, token in zip((NEXT_WORD, SECOND_CHOICE), following, strict=False):
            logits[token_id(token), token_id(last)] = preference
    logits[token_id(CALLS), token_id(END_OF_THOUGHT)] = NO_CALL
    logits[token_id(CALLS), TOOLS] = CALL
    after_verses = [*numbers, token_id(EOS)]
    logits[after_verses, token_id(VERSE[-1])] = NEXT_WORD
    for index, number in enumerate(after_verses[1:]):
        logits[numbers[: index + 1], SEEN + index] = -NEXT_NUMBER
        logits[number, SEEN + index] = NEXT_NUMBER
    return logits


def model_config() -> dict[str, object]:
    """`config.json`."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_size": HIDDEN,
        "intermediate_size": HEAD_DIM,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": MAX_POSITIONS,
        "rms_norm_eps": 1e-9,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "tie_word_embeddings": False,
        "vocab_size": len(vocabulary()),
        "bos_token_id": token_id(BOS),
        "eos_token_id": token_id(EOS),
    }


def write_checkpoint(folder: Path) -> Path:
    """Write the checkpoint into `folder`, made if need be, and return it. Raises OSError when it cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model_config(), indent=1) + "\n", encoding="utf-8")
    write_text_files(folder, vocabulary(), MARKS, MAX_POSITIONS)
    (folder / "model.safetensors").write_bytes(save(tensors(), metadata={"format": "pt"}))
    return folder
