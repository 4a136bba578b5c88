"""Everything that the product offers: the list of profiles, and every combination that is not refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dsv4_serve.entrypoint.choose import Found, choose
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.request import Layer, Request
from dsv4_serve.entrypoint.resolve import resolve
from dsv4_serve.entrypoint.sheets import Library

SIZES = (1, 2, 4, 8)


def listing(library: Library) -> list[dict[str, Any]]:
    """Return each profile: context in tokens, requests, tensor parallel sizes, models, hardware, measured figures."""
    entries = []
    for name in library.names("profile"):
        sheet = library.profile(name, "")
        flags = {key: value for link in sheet.chain() for key, value in link.own.flags.items()}
        entries.append(
            {
                "name": name,
                "about": sheet.get("about"),
                "context": flags.get("max-model-len"),
                "requests": sheet.get("requests") or flags.get("max-num-seqs"),
                "tensor-parallel-sizes": sheet.get("tensor_parallel_sizes"),
                "models": sheet.get("models"),
                "hardware": sheet.get("hardware"),
                "measured": [m.model_dump(by_alias=True) for m in sheet.own.measured],
            }
        )
    return entries


def every_plan(library: Library) -> Iterator[tuple[tuple[str, str, str, int], Plan]]:
    """Yield each allowed (profile, model, hardware, tensor parallel size) with its plan."""
    for profile in library.names("profile"):
        for model in library.names("model"):
            for hardware in library.names("hardware"):
                for size in SIZES:
                    try:
                        yield (profile, model, hardware, size), plan_by_name(library, profile, model, hardware, size)
                    except ConfigError:
                        continue


def plan_by_name(library: Library, profile: str, model: str, hardware: str, size: int) -> Plan:
    """Return the plan of one combination, as the command line would ask for it."""
    by_name = "command line"
    has_repository = "model" in library.model(model, by_name).get("flags")
    request = Request(
        {
            "profile": Setting(profile, by_name),
            "model": Setting(model if has_repository else f"{model}=/models/{model}", by_name),
            "hardware": Setting(hardware, by_name),
        },
        command_line=Layer({"tensor-parallel-size": Setting(size, by_name)}),
    )
    return resolve(choose(library, request, lambda: Found(hardware, by_name)), request)
