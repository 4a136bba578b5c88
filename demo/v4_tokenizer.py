"""A tokenizer without merges: token id = byte, for the bytes below the vocabulary size; 0 and 1 are BOS and EOS."""

import json
from pathlib import Path

from .byte_level import byte_alphabet

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"


def write_tokenizer(directory: Path, vocab: int) -> None:
    """Write tokenizer.json and tokenizer_config.json for the first `vocab` bytes."""
    special = [
        {
            "id": n,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for n, text in enumerate((BOS, EOS))
    ]
    vocabulary = {BOS: 0, EOS: 1} | {text: n for n, text in enumerate(byte_alphabet()[:vocab]) if n > 1}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_048_576,
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
