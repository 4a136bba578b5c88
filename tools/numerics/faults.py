"""The faults of faults.toml, and how each changes a checkpoint or the code of a copied vLLM."""

import json
import shutil
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dsv4_serve.demo.numerics import checkpoint
from dsv4_serve.demo.numerics.sizes import HC
from dsv4_serve.demo.numerics.weights import Parameter
from dsv4_serve.demo.v4_tensors import Linear

TABLE = Path(__file__).with_name("faults.toml")
OTHER = {"w1": "w3", "w3": "w1"}


@dataclass(frozen=True)
class Fault:
    """One entry of the table."""

    text: str
    weights: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, float] = field(default_factory=dict)
    crossed: str = ""
    code: tuple[str, str, str] | tuple[()] = ()
    reference: tuple[str, str, str] | tuple[()] = ()
    prompts: tuple[str, ...] = ("middle",)
    faint: str = ""
    """The table that a signature is kept of (signatures.py), where the fault changes less than rounding does."""

    def touches(self, name: str) -> bool:
        """Whether a parameter's numbers may change."""
        beginnings = [*self.weights, *([self.crossed] if self.crossed else [])]
        return any(name.startswith(beginning) for beginning in beginnings)

    def draw(self, parameter: Parameter, seed: int) -> Any:
        """Return a parameter's numbers as the fault leaves them."""
        name = parameter.name
        if self.crossed and name.startswith(self.crossed) and name[-2:] in OTHER:
            parameter = replace(parameter, name=name[:-2] + OTHER[name[-2:]])
        value = parameter.draw(seed)
        for beginning, word in self.weights.items():
            if name.startswith(f"{beginning}.") or name == beginning:
                value = CHANGES[word](value, name)
        return value

    def write(self, folder: Path) -> None:
        """Write the changed checkpoint."""
        checkpoint.write(folder, draw=self.draw)
        file = folder / "config.json"
        values = json.loads(file.read_text())
        for key, value in self.config.items():
            *parents, last = key.split(".")
            inner = values
            for parent in parents:
                inner = inner[parent]
            inner[last] = value
        file.write_text(json.dumps(values))

    def patch(self, tree: Path, copy: Path) -> Path:
        """Return the vLLM to serve with: `tree`, or a copy with the changed file."""
        if not self.code:
            return tree
        name, stands, put = self.code
        shutil.copytree(tree, copy, copy_function=_link, symlinks=True)
        file = copy / "vllm" / name
        source = file.read_text()
        if source.count(stands) != 1:
            raise ValueError(f"{stands!r} stands {source.count(stands)} times in {file}, not once")
        file.unlink()
        file.write_text(source.replace(stands, put))
        return copy


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _zero(value: Any, _name: str) -> Any:
    return replace(value, levels=np.zeros_like(value.levels)) if isinstance(value, Linear) else np.zeros_like(value)


def _doubled(value: Linear, _name: str) -> Linear:
    return replace(value, exps=value.exps + np.int8(1))


def _one_block(value: Linear, _name: str) -> Linear:
    exps = value.exps.copy()
    exps[:128, :8] += 1
    return replace(value, exps=exps)


def _negated(value: Linear, _name: str) -> Linear:
    return replace(value, levels=-value.levels)


def _rolled(value: Any, _name: str) -> Any:
    return np.roll(value, 1, axis=0)


def _w3_halved(value: Linear, name: str) -> Linear:
    return replace(value, exps=value.exps - np.int8(1)) if name.endswith(".w3") else value


def _transposed(value: Any, _name: str) -> Any:
    """The gates before the mixing matrix stay."""
    order = np.concatenate([np.arange(2 * HC), 2 * HC + np.arange(HC * HC).reshape(HC, HC).T.reshape(-1)])
    return np.ascontiguousarray(value[order])


CHANGES: dict[str, Callable[[Any, str], Any]] = {
    "zero": _zero,
    "doubled": _doubled,
    "one_block": _one_block,
    "negated": _negated,
    "rolled": _rolled,
    "w3_halved": _w3_halved,
    "transposed": _transposed,
}


def read() -> dict[str, Fault]:
    """Read the table."""
    return {name: Fault(**entry) for name, entry in tomllib.loads(TABLE.read_text()).items()}
