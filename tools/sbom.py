"""
Compare a bill of materials with the files of the image that it describes.

    python -m tools.sbom ROOT

ROOT is the root file system of an image, as `podman image mount` or `docker export | tar x` gives it. Each file below it
must belong to a package of its `/usr/share/dsv4/sbom.json`, or to one of OTHERS. Each package of the bill that has a list
of files must be there. Status 1 where a file or a package is left over.
"""

from __future__ import annotations

import csv
import fnmatch
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

SBOM = "usr/share/dsv4/sbom.json"
DPKG = "var/lib/dpkg"
OTHERS: Mapping[str, str] = {
    "/usr/share/dsv4/*": "what the build wrote: build.json, sbom.json, the demo's checkpoint, kernel packs",
    "/opt/dsv4/pyvenv.cfg": "python3 -m venv",
    "/opt/dsv4/bin/python*": "python3 -m venv",
    "/opt/dsv4/bin/[aA]ctivate*": "python3 -m venv",
    "/opt/dsv4/lib64": "python3 -m venv",
    "*/__pycache__/*.pyc": "compiled from a file of a package; deploy/image/bytecode.sh",
    "/usr/local/cuda": "a link to the CUDA packages; deploy/image/toolkit.sh",
    "*/nvidia/cu13/lib64": "deploy/image/toolkit.sh",
    "*/nvidia/cu13/lib/lib*.so": "links to libraries of the CUDA packages; deploy/image/toolkit.sh",
    "*/nvidia/cu13/lib/stubs/libcuda.so": "deploy/image/toolkit.sh",
    "/etc/ld.so.conf.d/dsv4-cuda.conf": "deploy/image/toolkit.sh",
    "/etc/ld.so.cache": "ldconfig",
    "/var/lib/dpkg/*": "the database of the distribution's packages",
    "/var/lib/apt/*": "apt",
    "/var/lib/systemd/*": "a maintainer script",
    "/var/lib/pam/*": "a maintainer script",
    "/var/cache/debconf/*": "debconf",
    "/etc/*": "configuration, which maintainer scripts and the container engine write",
    "/usr/share/ca-certificates/*": "ca-certificates",
    "/usr/share/info/dir*": "a maintainer script",
    "/usr/lib/*/gconv/gconv-modules.cache": "a maintainer script",
    "/usr/local/*": "empty folders of the base",
    "/bin": "merged into /usr",
    "/sbin": "merged into /usr",
    "/lib*": "merged into /usr",
    "/usr/lib64/*": "merged into /usr",
    "/run/*": "written by the container engine",
    "/.dockerenv": "written by the container engine",
}
"""Files that belong to no package, by pattern, and who wrote them."""


def files(root: Path) -> set[str]:
    """Return every file and link below a root, as absolute paths in it; pseudo file systems are left out."""
    found = set()
    for folder, names, others in os.walk(root):
        at = Path(folder)
        if at == root:
            names[:] = [name for name in names if name not in ("proc", "sys", "dev", "tmp")]
        links = [name for name in names if (at / name).is_symlink()]
        found |= {f"/{(at / name).relative_to(root)}" for name in (*others, *links)}
    return found


def debian_files(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of each of the distribution's packages with each of its files."""
    for listing in sorted((root / DPKG / "info").glob("*.list")):
        name = listing.stem.partition(":")[0]
        yield from ((name, line) for line in listing.read_text("utf-8").splitlines())
    diversions = (
        (root / DPKG / "diversions").read_text("utf-8").splitlines() if (root / DPKG / "diversions").exists() else []
    )
    for _, moved, name in zip(diversions[::3], diversions[1::3], diversions[2::3], strict=False):
        yield name, moved


def python_files(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of each Python distribution with each file that its RECORD lists."""
    for record in sorted(root.glob("opt/dsv4/lib/python3*/site-packages/*.dist-info/RECORD")):
        site = record.parents[1]
        name = _metadata_name(record.with_name("METADATA"))
        with record.open(encoding="utf-8", newline="") as rows:
            for row in csv.reader(rows):
                yield name, f"/{os.path.relpath(os.path.normpath(site / row[0]), root)}"


def _metadata_name(metadata: Path) -> str:
    return next(line[6:].strip() for line in metadata.read_text("utf-8").splitlines() if line.startswith("Name: "))


def plain(name: str) -> str:
    """Return a name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def merged(path: str) -> str:
    """Return a path of the distribution as it is since /bin, /sbin and /lib are links into /usr."""
    return re.sub(r"^/(bin|sbin|lib\w*)/", r"/usr/\1/", path)


def compare(
    present: Iterable[str], owned: Iterable[tuple[str, str]], named: Iterable[str]
) -> tuple[list[str], list[str], list[str]]:
    """Return files of no package, packages with files that the bill does not name, and packages of the bill without files."""
    bill = {plain(name) for name in named}
    owners: dict[str, str] = {merged(path): plain(name) for name, path in owned}
    left = [
        path
        for path in sorted(present)
        if merged(path) not in owners and not any(fnmatch.fnmatchcase(path, pattern) for pattern in OTHERS)
    ]
    return left, sorted(set(owners.values()) - bill), sorted(bill - set(owners.values()))


def main(root: Path) -> int:
    """Print what is left over; return 1 for anything."""
    bill = json.loads((root / SBOM).read_text("utf-8"))
    names = [part["name"] for part in bill["components"]]
    present = files(root)
    left, unnamed, absent = compare(present, [*debian_files(root), *python_files(root)], names)
    for text, found in (
        ("files of no package", left),
        ("packages that the bill does not name", unnamed),
        ("packages of the bill that have no file", absent),
    ):
        print(f"{text}: {len(found)}", *found[:50], sep="\n  ")
    print(f"{len(present)} files, {len(names)} packages in the bill")
    return 1 if left or unnamed or absent else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
