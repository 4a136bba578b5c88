"""
Compare a bill of materials with the files of the image that it describes.

    python -m tools.sbom ROOT

ROOT is the root file system of an image, as `docker export CONTAINER | tar x` gives it. Each file in it must belong to
a package of its `/usr/share/dsv4/sbom.json`, or be one of OTHERS. Each package of the bill must have its list of files.
Status 1 where a file or a package is left over.
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
BUILD = "usr/share/dsv4/build.json"
DPKG = "var/lib/dpkg"
SITE = "opt/dsv4/lib/python3*/site-packages"
PSEUDO = ("dev", "proc", "sys")
"""File systems of the kernel, in which nothing of the image lies."""
OTHERS: Mapping[str, tuple[str, ...]] = {
    "the build (deploy/image)": ("/usr/share/dsv4/*", "/var/cache/dsv4/*"),
    "python3 -m venv": (
        "/opt/dsv4/pyvenv.cfg",
        "/opt/dsv4/lib64",
        "/opt/dsv4/bin/[Aa]ctivate*",
        "/opt/dsv4/bin/python",
        "/opt/dsv4/bin/python3*",
    ),
    "deploy/image/toolkit.sh": (
        "/usr/local/cuda",
        "/opt/dsv4/lib/*/nvidia/cu13/lib64",
        "/opt/dsv4/lib/*/nvidia/cu13/lib/lib*.so",
        "/opt/dsv4/lib/*/nvidia/cu13/lib/stubs/libcuda.so",
        "/etc/ld.so.conf.d/dsv4-cuda.conf",
    ),
    "dpkg and apt": ("/var/lib/dpkg/*", "/var/lib/apt/*", "/etc/apt/*", "/etc/dpkg/origins/default"),
    "update-alternatives": ("/etc/alternatives/*",),
    "update-ca-certificates": ("/etc/ssl/certs/*", "/etc/ca-certificates.conf"),
    "debconf": ("/var/cache/debconf/*.dat",),
    "ldconfig": ("/etc/ld.so.cache",),
    "users and groups": tuple(
        f"/etc/{name}{old}"
        for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
        for old in ("", "-")
    ),
    "maintainer scripts": (
        *("/etc/.pwd.lock", "/etc/environment", "/etc/inputrc", "/etc/localtime", "/etc/motd", "/etc/nsswitch.conf"),
        *("/etc/profile", "/etc/python3*/debian_config", "/etc/security/opasswd", "/etc/shells", "/etc/timezone"),
        *("/etc/fstab", "/etc/pam.d/common-*", "/etc/rc[0-6S].d/*", "/etc/systemd/system/*.wants/*"),
        *("/root/.bashrc", "/root/.profile", "/usr/local/man", "/usr/share/info/dir", "/var/spool/mail"),
        *("/var/lib/pam/*", "/var/lib/python/*_installed", "/var/lib/shells.state", "/var/lib/systemd/*"),
    ),
    "the container engine": ("/.dockerenv", "/etc/hostname", "/etc/hosts", "/etc/mtab", "/etc/resolv.conf", "/run/*"),
}
"""Patterns of files that belong to no package, by who wrote them."""
Owned = Iterator[tuple[str, str]]


def files(root: Path) -> set[str]:
    """Return every file and link below a root, as absolute paths in it; links of update-alternatives are its own."""
    found = set()
    for folder, names, others in os.walk(root):
        at = Path(folder)
        if at == root:
            names[:] = [name for name in names if name not in PSEUDO]
        links = [name for name in names if (at / name).is_symlink()]
        found |= {f"/{(at / name).relative_to(root)}" for name in (*others, *links) if not _alternative(at / name)}
    return found


def _alternative(path: Path) -> bool:
    return path.is_symlink() and str(path.readlink()).startswith("/etc/alternatives/")


def debian_files(root: Path) -> Owned:
    """Yield the name of each of the distribution's packages with each of its files."""
    for listing in sorted((root / DPKG / "info").glob("*.list")):
        name = listing.stem.partition(":")[0]
        yield from ((name, line) for line in listing.read_text("utf-8").splitlines())
    diversions = root / DPKG / "diversions"
    lines = diversions.read_text("utf-8").splitlines() if diversions.exists() else []
    yield from ((name, moved) for _, moved, name in zip(lines[::3], lines[1::3], lines[2::3], strict=True))


def python_files(root: Path) -> Owned:
    """Yield the name of each Python distribution with each file that its RECORD lists."""
    for record in sorted(root.glob(f"{SITE}/*.dist-info/RECORD")):
        metadata = record.with_name("METADATA").read_text("utf-8").splitlines()
        name = next(line.removeprefix("Name: ") for line in metadata if line.startswith("Name: "))
        with record.open(encoding="utf-8", newline="") as rows:
            for row in csv.reader(rows):
                path = os.path.normpath(record.parents[1] / row[0])
                yield name, f"/{os.path.relpath(path, root)}"


def patched_files(root: Path) -> Owned:
    """Yield our own package with each file that a patch changes or adds."""
    patches = json.loads((root / BUILD).read_text("utf-8"))["patches"]
    for site in root.glob(SITE):
        for patch in patches:
            yield from (("dsv4-serve", f"/{site.relative_to(root)}/{file}") for file in patch["files"])


def plain(name: str) -> str:
    """Return a name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def merged(path: str) -> str:
    """Return a path of a package as it is where /bin, /sbin and /lib are links into /usr."""
    return re.sub(r"^/(bin|sbin|lib\w*)(?=/)", r"/usr/\1", path)


def source(path: str) -> str:
    """Return the Python file that bytecode was compiled from; another path as it is."""
    return re.sub(r"__pycache__/([^/]+)\.\w+-\d+\.pyc$", r"\1.py", path)


def compare(
    present: Iterable[str], owned: Iterable[tuple[str, str]], named: Iterable[str]
) -> tuple[list[str], list[str], list[str]]:
    """Return files of no package, packages that the bill does not name, and packages of the bill without a list."""
    bill = {plain(name) for name in named}
    owners = {merged(path): plain(name) for name, path in owned}
    left = [path for path in sorted(present) if not {merged(path), source(merged(path))} & owners.keys()]
    patterns = [pattern for group in OTHERS.values() for pattern in group]
    left = [path for path in left if not any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)]
    return left, sorted(set(owners.values()) - bill), sorted(bill - set(owners.values()))


def main(root: Path) -> int:
    """Print what is left over; return 1 for anything."""
    names = [part["name"] for part in json.loads((root / SBOM).read_text("utf-8"))["components"]]
    present = files(root)
    owned = [*patched_files(root), *debian_files(root), *python_files(root)]
    findings = compare(present, owned, names)
    titles = ("files of no package", "packages that the bill does not name", "packages of the bill without files")
    for title, found in zip(titles, findings, strict=True):
        print(f"{title}: {len(found)}", *found, sep="\n  ")
    print(f"{len(present)} files, {len(names)} packages in the bill")
    return 1 if any(findings) else 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / SBOM).is_file():
        sys.exit(f"usage: python -m tools.sbom ROOT, the unpacked files of an image, with {SBOM}")
    sys.exit(main(Path(sys.argv[1])))
