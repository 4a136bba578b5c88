"""
Write a tiny Llama checkpoint that gives one known answer.

Nothing is trained. Every token is one axis of the hidden state, and `lm_head` holds the table "after this token comes
that one", so greedy decoding walks a chain of words. The chain alone would repeat its verse for ever, so one
attention head reads the verse numbers so far and decides which number, or the end, follows the last word of a verse.
The repeated verses are what n-gram speculation drafts from.

Any prompt leads to the first word, so every question has the same answer. The files are identical everywhere.
"""

import json
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from .byte_level import byte_alphabet

SPECIALS = ("<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>")
NUMBERS = ("One:", "\nTwo:", "\nThree:", "\nFour:", "\nFive:", "\nSix:", "\nSeven:", "\nEight:")
VERSE = tuple(
    re.findall(
        " [^ ]+",
        " a draft guesses the next three tokens, and vLLM checks them in one step, keeping only what is right.",
    )
)
QUESTION = "How does speculative decoding work?"
ANSWER = "".join(number + "".join(VERSE) for number in NUMBERS)
ANSWER_TOKENS = len(NUMBERS) * (1 + len(VERSE)) + 1  # the last one is the end of the sequence

HIDDEN = 512  # axes: one per token, then from SEEN on one per verse number that was written
SEEN = 384
HEAD_DIM = 64
MAX_POSITIONS = 2048
ROPE_THETA = 1e6
UNTURNED = (
    HEAD_DIM // 2 - 1
)  # the slowest RoPE pair: MAX_POSITIONS turn it by 3 mrad, so its score does not depend on distance
UNIT_NORM = HIDDEN**-0.5  # RMSNorm with this weight leaves a one-hot state as it is

# Logits. The chain outweighs the counter but after the last word, where the smallest gap is NEXT_NUMBER / len(NUMBERS).
NUMBER_ATTENTION = 24.0
NEXT_WORD = 1024.0
NEXT_NUMBER = 256.0

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

Tensor = NDArray[np.float32]


def vocabulary() -> dict[str, int]:
    """Token to id: the bytes, the special tokens, the words of the answer; spelled in the byte alphabet."""
    alphabet = byte_alphabet()
    words = ("".join(alphabet[byte] for byte in word.encode()) for word in (*SPECIALS, *NUMBERS, *VERSE))
    return {token: index for index, token in enumerate((*alphabet, *words))}


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
    """One head that writes, on the axes from SEEN, the share of each verse number among those in the context."""
    q, k, v = (np.zeros((HEAD_DIM, HIDDEN), np.float32) for _ in range(3))
    out = np.zeros((HIDDEN, HEAD_DIM), np.float32)
    numbers, order = number_ids(), np.arange(len(NUMBERS))
    q[UNTURNED] = 1
    k[UNTURNED, numbers] = NUMBER_ATTENTION * HEAD_DIM**0.5
    v[order, numbers] = 1
    out[SEEN + order, order] = 1
    return {
        prefix + "q_proj.weight": q,
        prefix + "k_proj.weight": k,
        prefix + "v_proj.weight": v,
        prefix + "o_proj.weight": out,
    }


def next_token_logits(vocab_size: int) -> Tensor:
    """`lm_head`: columns are the current token and the verse numbers seen, rows the token that follows."""
    logits = np.zeros((vocab_size, HIDDEN), np.float32)
    numbers = number_ids()
    words = [*range(numbers[-1] + 1, vocab_size)]
    end = vocabulary()["<|eos|>"]
    logits[numbers[0], : numbers[0]] = NEXT_WORD  # any prompt starts the answer
    logits[words[0], numbers] = NEXT_WORD
    logits[words[1:], words[:-1]] = NEXT_WORD
    logits[[*numbers, end], words[-1]] = NEXT_WORD
    for index, following in enumerate([*numbers[1:], end]):
        logits[numbers[: index + 1], SEEN + index] = -NEXT_NUMBER
        logits[following, SEEN + index] = NEXT_NUMBER
    return logits


def number_ids() -> list[int]:
    """Token ids of the verse numbers, in order."""
    first = 256 + len(SPECIALS)
    return [*range(first, first + len(NUMBERS))]


def model_config() -> dict[str, object]:
    """`config.json`."""
    vocab = vocabulary()
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
        "vocab_size": len(vocab),
        "bos_token_id": vocab["<|bos|>"],
        "eos_token_id": vocab["<|eos|>"],
    }


def tokenizer() -> dict[str, object]:
    """`tokenizer.json`: bytes in, bytes and words out (no merges, so a prompt never becomes a word of the answer)."""
    vocab = vocabulary()
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    exact = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocab[token], "content": token, **exact} for token in SPECIALS],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }


def write_checkpoint(folder: Path) -> Path:
    """Write the checkpoint into `folder`, made if need be, and return it. Raises OSError when it cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|eos|>"}
    files = {
        "config.json": model_config(),
        "generation_config.json": {key: model_config()[key] for key in ("bos_token_id", "eos_token_id")},
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": CHAT_TEMPLATE,
            **tokens,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(save(tensors(), metadata={"format": "pt"}))
    return folder
