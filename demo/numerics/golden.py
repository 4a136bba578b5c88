"""The reference's answers, as they are shipped: `golden-SIZE.npz`, made by `python -m tools.numerics`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

TOP = 8
"""How many tokens of each position are kept."""


@dataclass(frozen=True)
class ReferenceTable:
    """
    What the reference computed, a row a position.

    `tokens` are the likeliest, `logprobs` theirs; `margin` says how clearly the closest router chose; `routes` are the
    experts taken, [position, layer, expert].
    """

    tokens: NDArray[np.uint8]
    logprobs: NDArray[np.float16]
    margin: NDArray[np.float16]
    routes: NDArray[np.uint8]


@dataclass(frozen=True)
class Golden:
    """
    Tables by the names that `rows` describes, and the digest of the weights.

    `floors` are medians of each expert's positions, [layer, expert], that rounding alone gave on CPU, by prompt.
    `signatures` are how a fault changes a table's logprobs, by the names of table and fault.
    """

    tables: dict[str, ReferenceTable]
    digest: str
    floors: dict[str, NDArray[Any]] = field(default_factory=dict)
    signatures: dict[tuple[str, str], NDArray[Any]] = field(default_factory=dict)

    def save(self, file: IO[bytes]) -> None:
        """Write; the same contents give the same bytes."""
        arrays: dict[str, NDArray[Any]] = {"digest": np.frombuffer(bytes.fromhex(self.digest), np.uint8)}
        for name, table in self.tables.items():
            for part in ReferenceTable.__dataclass_fields__:
                arrays[f"{name}.{part}"] = getattr(table, part)
        np.savez_compressed(file, allow_pickle=False, **arrays)


def kept(logprobs: NDArray[np.float64], margin: NDArray[np.float64], routes: NDArray[np.int64]) -> ReferenceTable:
    """Keep the likeliest tokens of each row."""
    tokens = np.argsort(-logprobs, axis=1, kind="stable")[:, :TOP]
    return ReferenceTable(
        tokens.astype(np.uint8),
        np.take_along_axis(logprobs, tokens, axis=1).astype(np.float16),
        margin.astype(np.float16),
        routes.astype(np.uint8),
    )


def load(size: str = "tiny") -> Golden:
    """Read what is shipped."""
    with (files(__package__ or "") / f"golden-{size}.npz").open("rb") as file, np.load(file) as arrays:
        tables = {
            name: ReferenceTable(*(arrays[f"{name}.{part}"] for part in ReferenceTable.__dataclass_fields__))
            for name in names(arrays)
        }
        digest = arrays["digest"].tobytes().hex()
    signatures = {}
    for key, values in _load(f"signatures-{size}.npz").items():
        table, _, fault = key.partition(":")
        signatures[table, fault] = values
    return Golden(tables, digest, _load(f"floors-{size}.npz"), signatures)


def _load(name: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file that not every size has."""
    path = files(__package__ or "") / name
    if not path.is_file():
        return {}
    with path.open("rb") as file, np.load(file) as arrays:
        return dict(arrays)


def names(arrays: "np.lib.npyio.NpzFile") -> Iterator[str]:
    """Yield the names of the tables in a file."""
    return (key.removesuffix(".margin") for key in arrays if key.endswith(".margin"))
