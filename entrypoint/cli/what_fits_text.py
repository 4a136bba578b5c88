"""What fits some GPUs, as text of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from ..catalog import community
from .profiles import figure, given, wrapped

if TYPE_CHECKING:
    from ..catalog.schema import Measured
    from ..resolve.what_fits import Choice, FittingProfile, WhatFits

_ROW = "{mark:1} {model:16} {disk:>8}  {gpus:7}  {held:9}  {speed}"
_LABELS = {
    "": "default",
    "auto": "PROFILE=auto",
    "auto:context": "PROFILE=auto:context",
    "auto:throughput": "PROFILE=auto:throughput",
}


def text(found: WhatFits, *, named: bool) -> str:
    """Return a table of what fits, the figures that it quotes, and how to see why the rest does not."""
    hardware = found.hardware
    memory = hardware.get("memory_gib")
    size = f", {memory:g} GiB each" if memory else ""
    lines = [wrapped(f"{found.gpus} x {hardware.name}{size} ({found.origin})", "", "  ")]
    notes: list[str] = []
    if not found.fits:
        return "\n".join([*lines, "", *_nothing(found)])
    header = _ROW.format(
        mark="", model="profile, model", disk="disk GiB", gpus="GPUs", held="requests", speed="output tokens/s"
    )
    lines += ["", header, *_profiles(found, notes)]
    lines += ["", *(wrapped(line, "", "  ") for line in _end(found, notes, named)), ""]
    lines += [_choice(_LABELS[name], choice, found.gpus) for name, choice in found.choices.items()]
    return "\n".join(lines)


def _nothing(found: WhatFits) -> Iterator[str]:
    """Say that nothing fits, how many GPUs would do, and why the default does not."""
    name, enough = found.hardware.name, found.enough
    yield "Nothing fits."
    if enough:
        more = f"dsv4 profiles --hardware {name} --gpus {enough}"
        yield wrapped(f"On {enough} of these GPUs something does: {more}", "", "  ")
        yield wrapped("GPUs of several hosts count too: add --nodes N here, and --nnodes N to a start.", "", "  ")
    yield wrapped(f"The default: {found.choices[''].why_not.partition(' To override')[0]}", "", "  ")


def _choice(label: str, choice: Choice, gpus: int) -> str:
    label = f"{label:25}"
    if choice.why_not:
        return wrapped(choice.why_not.partition(" To override")[0], f"{label} none: ", " " * 26)
    served = f"{label} {choice.profile} with {choice.model} on {choice.gpus} of {gpus} GPU{'s' * (gpus != 1)}"
    return wrapped(choice.short, f"{served}: ", " " * 26) if choice.short else served


def _profiles(found: WhatFits, notes: list[str]) -> Iterator[str]:
    default = found.choices[""]
    for (profile, context), group in groupby(found.fits, key=lambda fit: (fit.profile, fit.context)):
        yield f"{profile}: {context:,} tokens" if context else f"{profile}: a context that vLLM decides"
        for fits in _merged(list(group)):
            own = any(
                (fit.profile, fit.model, fit.gpus) == (default.profile, default.model, default.gpus) for fit in fits
            )
            first = fits[0]
            row = {
                "mark": "*" if own else "",
                "model": first.model,
                "disk": f"{first.disk_gib:.1f}",
                "gpus": ",".join(str(fit.gpus) for fit in fits),
                "held": _held(first),
            }
            ours = [(one.short, _ours(one)) for fit in fits for one in fit.measured]
            others = [(community.short(one), given(one)) for fit in fits for one in fit.community]
            speeds = [_speed(*one, notes) for one in [*ours, *others]] or ["unmeasured"]
            yield _ROW.format(**row, speed=speeds[0])
            yield from (_ROW.format(mark="", model="", disk="", gpus="", held="", speed=one) for one in speeds[1:])


def _held(fit: FittingProfile) -> str:
    """Return how many requests run at once: `8`, `2 of 8`, or `4 x 16` for data parallel replicas."""
    held = f"{fit.held}" if fit.held >= fit.requests else f"{fit.held} of {fit.requests}"
    return f"{fit.replicas} x {held}" if fit.replicas > 1 else held


def _merged(fits: list[FittingProfile]) -> list[list[FittingProfile]]:
    """Put sizes of one model that hold as many requests together, the fewest GPUs first."""
    rows: dict[tuple[str, str], list[FittingProfile]] = {}
    for fit in sorted(fits, key=lambda fit: (fit.model, fit.gpus)):
        rows.setdefault((fit.model, _held(fit)), []).append(fit)
    return list(rows.values())


def _ours(measured: Measured) -> str:
    return figure(measured.model_dump())


def _speed(short: str, note: str, notes: list[str]) -> str:
    if note not in notes:
        notes.append(note)
    return f"{short} [{notes.index(note) + 1}]"


def _end(found: WhatFits, notes: list[str], named: bool) -> Iterator[str]:
    for number, one in enumerate(notes, 1):
        yield f"[{number}] {'; '.join(line.strip() for line in one.splitlines())}"
    yield "*: the default. requests: of full length at once, computed. GPUs: those that one replica takes."
    if found.missing:
        profile, model, size = found.missing[0]
        where = f" --hardware {found.hardware.name}" if named else ""
        count = len(found.missing)
        yield (
            f"{count} other pair{'s' * (count != 1)} of profile and model do{'es' * (count == 1)} not fit; to see why:"
            f" dsv4 fit --profile {profile} --model {model}{where}{f' --tp {size}' if size else ''}"
        )
