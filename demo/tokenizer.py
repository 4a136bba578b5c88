"""
Byte-level tokenizers without merges.

Each byte of a prompt is a token, and each of DeepSeek-V4's marks; words are only generated.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

BOS, EOS, USER, ASSISTANT = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"
THINK, END_OF_THOUGHT, DSML, TOOL_RESULT = "<think>", "</think>", "｜DSML｜", "<tool_result>"
MARKS = (BOS, EOS, USER, ASSISTANT, THINK, END_OF_THOUGHT, DSML, TOOL_RESULT)


def byte_alphabet() -> list[str]:
    """Return the characters for bytes 0..255 in byte-level tokenizers (`bytes_to_unicode` of GPT-2)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    shifted = iter(range(256, 512))
    return [chr(byte if byte in printable else next(shifted)) for byte in range(256)]


def spelled(text: str) -> str:
    """Spell a text in the byte alphabet."""
    alphabet = byte_alphabet()
    return "".join(alphabet[byte] for byte in text.encode())


def added_tokens(numbers: Mapping[str, int], special: Collection[str] = (BOS, EOS)) -> list[dict[str, object]]:
    """Return the entries of `tokenizer.json` for marks; decoding may leave out the `special` ones."""
    exact = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [{"id": number, "content": mark, **exact, "special": mark in special} for mark, number in numbers.items()]


def tokenizer(vocabulary: Mapping[str, int], marks: Sequence[str]) -> dict[str, object]:
    """Return `tokenizer.json`; `vocabulary` is spelled in the byte alphabet, but for the `marks`."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens({mark: vocabulary[mark] for mark in marks}),
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }


def write_text_files(folder: Path, vocabulary: Mapping[str, int], marks: Sequence[str], max_length: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and generation_config.json, which makes answers greedy by default."""
    files: dict[str, object] = {
        "tokenizer.json": tokenizer(vocabulary, marks),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "pad_token": EOS,
            "clean_up_tokenization_spaces": False,
            "model_max_length": max_length,
        },
        "generation_config.json": {
            "bos_token_id": vocabulary[BOS],
            "eos_token_id": vocabulary[EOS],
            "temperature": 0.0,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
