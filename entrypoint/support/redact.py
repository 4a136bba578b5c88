"""Remove secrets from text that leaves this machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..secret import IN_URL, MASK, hidden, is_secret

_ENGINE = (
    *("DSV4_", "VLLM_", "NCCL_", "CUDA_", "NVIDIA_", "TORCH_", "PYTORCH_", "TRITON_", "FLASHINFER_", "HF_", "HUGGING"),
    *("PROFILE", "MODEL", "HARDWARE", "TP", "MAX_", "GPU_", "NUM_", "SERVED_", "PORT", "API_KEY"),
)
"""How the names of variables begin that change the plan or reach vLLM."""
_SHAPES = (
    re.compile(r"(?i)(bearer\s+)[^\s\"',}]+"),
    re.compile(
        r"(?i)((?:--|\b)(?:api[-_]key|hf[-_]token|x-api-key|password|secret)[\"']?(?:\s*[=:]\s*|\s+)[\"']?)[^\s\"',}]+"
    ),
    IN_URL,
    re.compile(r"()\b(?:hf|sk|ghp|glpat)[_-][A-Za-z0-9_-]{8,}"),
)
_QUOTED = re.compile(r"([\"']([A-Za-z][\w.-]*)[\"']\s*:\s*[\"'])[^\"']+")
"""A key of JSON or of a Python dictionary, with its text."""
_ASSIGNED = re.compile(r"(\b[A-Za-z][A-Za-z0-9]*(?:[_.-][A-Za-z0-9]+)+)([\"']?\s*[=:]\s*[\"']?)[^\s\"',}]{4,}")
"""A name of several words with its value; whether it is a secret, `is_secret` says."""
_SHORTEST = 4
"""Characters: a shorter value would mask parts of ordinary words."""


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that reach vLLM or change the plan; the value of each that may be a secret is masked."""
    names = sorted(name for name in environ if name.startswith(_ENGINE))
    return {name: MASK if is_secret(name) else environ[name] for name in names}


def secrets_in(environ: Mapping[str, str]) -> set[str]:
    """Return the values of variables whose names say that they hold a secret."""
    return {value for name, value in environ.items() if is_secret(name) and len(value) >= _SHORTEST}


def redacted(text: str, secrets: Iterable[str], home: str = "") -> str:
    """Return a text with known secrets, and what looks like one, masked; the home directory becomes `~`."""
    text = hidden(text, secrets)
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    for shape in _SHAPES:
        text = shape.sub(rf"\g<1>{MASK}", text)
    text = _QUOTED.sub(lambda match: f"{match[1]}{MASK}" if is_secret(match[2]) else match[0], text)
    text = _ASSIGNED.sub(_assigned, text)
    return re.sub(rf"{re.escape(home)}(?=/|\b)", "~", text) if len(home) > 1 else text


def _assigned(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2]}{MASK}" if is_secret(match[1]) else match[0]
