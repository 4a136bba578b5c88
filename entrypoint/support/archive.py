"""Write the parts of a support bundle into one archive."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, HostError, UserError
from .redact import redacted

Part = Callable[[], Any]
"""Returns text, or what JSON can hold; None if there is nothing. May raise OSError or UserError."""
README = "README.txt"


def write(out: Path, parts: Mapping[str, Part], secrets: set[str], home: str) -> list[str]:
    """
    Write a .tar.gz of the parts, redacted, and return one line for each: what it holds, or why it is missing.

    A part that fails does not end the bundle. Raise ConfigError when `out` exists, HostError when it cannot be written.
    """
    files = dict(_files(parts, secrets, home))
    lines = [
        f"{name}: {len(text.encode()):,} bytes" if good else f"{name}: {text}" for name, (text, good) in files.items()
    ]
    files[README] = ("\n".join(["Written by `dsv4 bundle --support`; secrets are masked.", *lines, ""]), True)
    folder = out.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    try:
        with out.open("xb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, (text, good) in files.items():
                if good:
                    data = text.encode("utf-8", "replace")
                    entry = tarfile.TarInfo(f"{folder}/{name}")
                    entry.size, entry.mode = len(data), 0o644
                    archive.addfile(entry, io.BytesIO(data))
    except FileExistsError:
        raise ConfigError(
            f"{out} exists and is not overwritten; remove it, or choose another file with --out."
        ) from None
    except OSError as error:
        raise HostError(f"cannot write {out} ({error.strerror}); choose another file with --out.") from None
    return lines


def _files(parts: Mapping[str, Part], secrets: set[str], home: str) -> Iterator[tuple[str, tuple[str, bool]]]:
    """Yield each name with its redacted text, or with the reason why there is none."""
    for name, part in parts.items():
        try:
            value = part()
        except (OSError, UserError) as error:
            yield name, (redacted(f"not included: {_reason(error)}", secrets, home), False)
            continue
        if value is None:
            yield name, ("not included: there is none", False)
        else:
            text = value if isinstance(value, str) else json.dumps(value, indent=2, default=str)
            yield name, (redacted(text, secrets, home), True)


def _reason(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    return " ".join(str(strerror or error).split())
