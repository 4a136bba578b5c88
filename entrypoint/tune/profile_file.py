"""Write the profile that won, beside other profiles of one's own; nothing is ever overwritten."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..catalog.catalog import Catalog
from ..errors import ConfigError, HostError, UsageError
from ..plan import Value
from ..replica_description import gpus
from . import setups

_NAME = "abcdefghijklmnopqrstuvwxyz0123456789.-_"


def check_place(name: str, folders: Sequence[Path], catalog: Catalog) -> Path:
    """Return the file to write; raise UserError, before anything is measured, where that is impossible."""
    if not name or set(name) - set(_NAME) or name.startswith((".", "-")):
        raise UsageError(f"--name {name!r}: use lower case letters, digits, `.`, `-` and `_`.")
    if not folders:
        raise ConfigError(
            "DSV4_PROFILES names no folder for the profile that `dsv4 tune` writes; set it, or see what would be tried"
            " with --dry-run."
        )
    if name in catalog.names("profile"):
        raise ConfigError(f"there is a profile {name} already; choose another --name, or move its file away.")
    return folders[0] / f"{name}.toml"


def text(profile: str, result: Mapping[str, Any], source: str) -> str:
    """Return the profile: what it changes and why, and the figures; `source` is the file of the result."""
    changes: dict[str, Value] = result["changes"]
    facts = conditions(result)
    whole = setups.body(profile, changes, _comments(result, facts, source), f"{profile}, tuned by dsv4 tune")
    return whole + _measured(result, facts, source)


def conditions(result: Mapping[str, Any]) -> dict[str, str]:
    """Return hardware, model, version and date of a result."""
    replica = result["replica"]
    machine, choices = replica.get("machine") or {}, replica.get("choices") or {}
    return {
        "hardware": " + ".join(gpus(machine)) or f"{machine.get('cores', '?')} CPU cores",
        "model": str(choices.get("model-name", "unknown")),
        "vllm": str((replica.get("versions") or {}).get("vllm", "unknown")),
        "date": str(result["date"])[:10],
    }


def _comments(result: Mapping[str, Any], facts: Mapping[str, str], source: str) -> Iterator[str]:
    yield "Made by `dsv4 tune` on {date}: {hardware}, {model}, vLLM {vllm}.".format(**facts)
    for one in result["candidates"]:
        if one["name"] in result["best"]:
            yield f"{one['name']}: {one['because']}."
    for before, after in zip(result["before"], result["after"], strict=True):
        yield f"{_change(before, after)}."
    yield f"Differences below {result['threshold']:.1%} are noise ({result['noise']['freedom'] + 1} starts or more)."
    if result["weights"].startswith("dummy"):
        yield "Measured with dummy weights: whether its answers are right and its drafts good is unproven."
    else:
        yield "Every start passed the draft gate and the corruption canary of `dsv4 serve`."
    yield f"Results: {source}"


def _change(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    then, now = before["output_tokens_per_second"], after["output_tokens_per_second"]
    shape = f"batch {before['batch']}, {before['input']} tokens in, {before['output']} out"
    return f"{shape}: {then:.2f} tok/s before, {now:.2f} with it ({now / then - 1:+.1%})"


def _measured(result: Mapping[str, Any], facts: Mapping[str, str], source: str) -> str:
    speeds = [f"{row['output_tokens_per_second']:.0f} tok/s at batch {row['batch']}" for row in result["after"]]
    dummy = " (dummy weights)" if result["weights"].startswith("dummy") else ""
    entry = {"what": ", ".join(speeds) + dummy, **facts, "source": source}
    lines = [f"{name} = {setups.toml(value)}" for name, value in entry.items()]
    return "\n".join(["", "[[measured]]", *lines]) + "\n"


def write(path: Path, whole: str) -> None:
    """Write a new file; raise HostError where that is impossible, or where there is one by now."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(whole)
    except OSError as error:
        remedy = "choose another --name, or another folder in DSV4_PROFILES"
        raise HostError(f"cannot write {path} ({error.strerror}); {remedy}.") from None
