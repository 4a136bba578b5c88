"""The small checkpoint of a plan: the layout of its artifact, the widths of Flash (tiny on a CPU), a known answer."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..catalog import demo_layout
from ..errors import ConfigError, HostError, NotFound
from ..fingerprint import fingerprint
from ..resolve.select import Selection

if TYPE_CHECKING:
    from ...demo.deepseek_v4 import Answer
    from ...demo.v4_reach import Reach

LAYOUTS_OF_NVFP4 = frozenset({"nvfp4", "pro", "flash-nvfp4", "flash-0731-nvfp4"})
ARCHITECTURES = ("deepseek-v4-flash", "deepseek-v4-pro", "deepseek-v4-tiny")
_WRITTEN, _DEMO = "written.json", Path(__file__).parents[2] / "demo"


@dataclass(frozen=True)
class SmallCheckpoint:
    """A folder to serve, the answers of its model, and the tokens of its far keys."""

    folder: Path
    layout: str
    answer: Answer
    reach: Reach


def layout_of(selection: Selection) -> str:
    """Return the layout of a selection's artifact; raise ConfigError where there is no small checkpoint of it."""
    model, drafter = selection.model, selection.drafter
    architecture, scheme = str(model.get("architecture")), str(model.get("scheme"))
    layout = demo_layout.layout_of(architecture, scheme, drafter.kind, drafter.scheme)
    drafts = " ".join(filter(None, (drafter.kind, drafter.scheme)))
    if layout is None or model.get("architecture") not in ARCHITECTURES:
        raise ConfigError(
            f"there is no small checkpoint of the layout of {model.name} ({model.get('architecture')},"
            f" {model.get('scheme')}, drafter {drafts}); `dsv4 qualify` needs DeepSeek-V4 with an MTP head or DSpark's"
            " drafter."
        )
    return layout


def write(folder: Path, layout: str, *, tiny: bool) -> SmallCheckpoint:
    """Write the checkpoint of a layout below `folder`, or find it there; raise HostError, or NotFound without numpy."""
    try:
        from ...demo import deepseek_v4, v4_text
    except ModuleNotFoundError as error:
        raise NotFound(f"`dsv4 qualify` needs {error.name}, which comes with vLLM; install vLLM here.") from None

    dims = deepseek_v4.Dims(experts=64) if tiny else deepseek_v4.FLASH
    walk = v4_text.reaching_walk(dims.vocab)
    assert walk.reach
    path = written(folder, layout, [repr(dims)], lambda path: deepseek_v4.write(path, layout, dims, walk=walk))
    return SmallCheckpoint(path, layout, deepseek_v4.Answer(walk.successors), walk.reach)


def written(folder: Path, name: str, sizes: Sequence[str], write: Callable[[Path], object]) -> Path:
    """Return the folder of a checkpoint, written by `write` where it is not there yet; raise HostError."""
    path = folder / f"{name}-{fingerprint(*sizes, _writers(_DEMO))}"
    if (path / _WRITTEN).exists():
        return path
    try:
        shutil.rmtree(path, ignore_errors=True)
        write(path)
        (path / _WRITTEN).write_text(json.dumps({"name": name}), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        raise HostError(f"cannot write {path} ({error.strerror}); set DSV4_CACHE to another folder.") from None
    return path


def _writers(package: Path) -> list[str]:
    """Return what changes when a checkpoint would be written otherwise."""
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(package.rglob("*.py"))]
