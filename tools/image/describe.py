"""
Describe an image: build.json, and its bill of materials with the distribution's packages added.

    describe.py gpu|cpu PATCHES SBOM FOLDER

PATCHES is what `dsv4 patch report` wrote, SBOM is CycloneDX JSON of the Python packages. COMMIT and SOURCE_DATE_EPOCH
(seconds) come from the environment. Runs in the build, with the image's own Python and its standard library.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
LOCKS = {"gpu": ("cuda", "gpu", "dsv4"), "cpu": ("torch", "cpu", "dsv4")}
NAMED = [
    "dsv4-serve",
    "vllm",
    "torch",
    "transformers",
    "compressed-tensors",
    "fastsafetensors",
    "triton",
    "tilelang",
    "humming-kernels",
    "flashinfer-python",
    "flashinfer-cubin",
    "nvidia-cuda-nvcc",
    "nvidia-nccl-cu13",
]


def main(target: str, patches: Path, sbom: Path, folder: Path) -> None:
    """Write build.json and sbom.json to `folder`, and print where kernels come from."""
    build = facts(target, json.loads(patches.read_text("utf-8")))
    write(folder / "build.json", build)
    bill = json.loads(sbom.read_text("utf-8"))
    bill["components"] = [*bill.get("components", []), *debian_packages()]
    write(folder / "sbom.json", bill)
    print(f"kernels: {build['kernels']}")


def facts(target: str, patches: dict[str, Any]) -> dict[str, Any]:
    """Return what build.json holds; None for a package that is absent, and for a date that was not given."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    versions = {name: installed(name) for name in NAMED}
    return {
        "target": target,
        "commit": os.environ["COMMIT"],
        "date": datetime.fromtimestamp(int(epoch), UTC).isoformat() if epoch else None,
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "python": platform.python_version(),
        "versions": versions,
        "locks": {f"{name}.txt": sha256(REQUIREMENTS / f"{name}.txt") for name in LOCKS[target]},
        "kernels": kernels(target, versions),
        **patches,
    }


def kernels(target: str, versions: dict[str, str | None]) -> str:
    """Return where FlashInfer's kernels come from; without cubins and a compiler, vLLM disables FlashInfer."""
    if target == "cpu":
        return "none: vLLM for CPU"
    if cubin := versions["flashinfer-cubin"]:
        return f"precompiled, flashinfer-cubin {cubin}; others just in time, nvcc {versions['nvidia-cuda-nvcc']}"
    return f"just in time, nvcc {versions['nvidia-cuda-nvcc']}; flashinfer-cubin is not in this image"


def installed(name: str) -> str | None:
    """Return the version of a distribution installed for this Python, None when it is absent."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def debian_packages() -> list[dict[str, Any]]:
    """Return the distribution's packages as CycloneDX components, by name."""
    vendor = platform.freedesktop_os_release()["ID"]
    form = "${binary:Package}\t${Version}\t${Architecture}\n"
    listed = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in sorted(listed.splitlines())]
    purls = [f"pkg:deb/{vendor}/{name.partition(':')[0]}@{number}?arch={arch}" for name, number, arch in rows]
    return [
        {"type": "library", "bom-ref": purl, "name": name.partition(":")[0], "version": number, "purl": purl}
        for purl, (name, number, _) in zip(purls, rows, strict=True)
    ]


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write(file: Path, data: dict[str, Any]) -> None:
    """Write readable JSON that is the same for the same data."""
    file.write_text(json.dumps(data, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
