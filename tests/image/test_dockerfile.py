"""What can be checked of the Dockerfile without building it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
LOCKS = sorted(path for path in (ROOT / "requirements").glob("*.txt") if path.name != "excluded.txt")
SCRIPTS = sorted((ROOT / "deploy/image").glob("*.sh"))


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} +(.+)", DOCKERFILE, re.MULTILINE)


def test_every_base_is_pinned_by_digest_and_can_be_replaced():
    bases = [line.split("=", 1)[1] for line in instructions("ARG") if line.startswith("BASE_")]
    assert len(bases) == 2
    assert all(re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", base) for base in bases)
    stages = {line.split(" AS ")[1] for line in instructions("FROM")}
    assert {line.split()[0] for line in instructions("FROM")} - stages == {"scratch", "${BASE_GPU}", "${BASE_CPU}"}


def test_plain_docker_build_makes_the_gpu_image():
    assert instructions("FROM")[-1].endswith(" AS gpu")


def test_no_variable_of_a_profile_is_set_in_the_image():
    names = re.findall(r"(\w+)=", " ".join(instructions("ENV")))
    assert "CUDA_HOME" in names
    assert not [name for name in names if name.startswith(("VLLM_", "NCCL_"))]


def test_both_images_start_stop_and_are_probed_alike():
    for name in ("ENTRYPOINT", "HEALTHCHECK", "USER", "VOLUME", "EXPOSE"):
        of_cpu, of_gpu = instructions(name)
        assert of_cpu == of_gpu


def test_the_labels_give_the_version_of_the_package():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert re.findall(r'image\.version="([^"]+)"', DOCKERFILE) == [version, version]


def test_every_folder_of_the_package_is_in_the_build_context():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-dir"].values()
    assert {folder.split("/")[0] for folder in folders} <= kept


def test_the_gpu_lock_has_one_cuda_from_compiler_to_runtime():
    """libcu++ stops a compilation whose compiler and headers are of different CUDA releases."""
    lock = (ROOT / "requirements/gpu.txt").read_text("utf-8")
    parts = {name: re.findall(rf"^nvidia-{name}==(\d+\.\d+)", lock, re.MULTILINE) for name in
             ("cuda-nvcc", "cuda-crt", "nvvm", "cuda-cccl", "cuda-runtime")}  # fmt: skip
    assert parts == {name: ["13.0"] for name in parts}


@pytest.mark.parametrize("lock", ["dsv4.txt", "cuda.txt"])
def test_the_gpu_lock_agrees_with_the_other_locks_of_the_image(lock):
    pins, theirs = (set(re.findall(r"^([\w-]+)==([^ ;]+)", (ROOT / "requirements" / name).read_text("utf-8"), re.MULTILINE))
                    for name in ("gpu.txt", lock))  # fmt: skip
    named = {name for name, _ in pins}
    assert not {pin for pin in theirs - pins if pin[0] in named}


@pytest.mark.parametrize("lock", [path.name for path in LOCKS])
def test_every_pin_of_a_lock_has_a_hash_and_no_index_is_named(lock):
    text = (ROOT / "requirements" / lock).read_text("utf-8")
    pins = re.findall(r"^[a-z0-9.-]+(?:\[[a-z0-9,]+\])?==.+(?:\n    .*)*", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[a-z]", text, re.MULTILINE))
    assert all("--hash=sha256:" in pin for pin in pins)
    assert not re.search(r"^--|://", text, re.MULTILINE)


def test_nothing_is_installed_without_its_hash():
    scripts = "".join(path.read_text("utf-8") for path in SCRIPTS) + (ROOT / "Makefile").read_text("utf-8")
    commands = re.findall(r"(?:/tools/bin/pip|\$\(PIP\))(?:.*\\\n)*.*", scripts)
    fetches = [line for line in commands if "--no-index" not in line]
    assert len(fetches) == 5
    assert [line for line in fetches if "--require-hashes" not in line] == []


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / "tools/image/build.sh"], ids=lambda path: path.name)
def test_every_script_is_posix_shell(script):
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_hadolint_finds_nothing():
    hadolint = Path(sys.executable).with_name("hadolint")  # requirements/dev.txt brings it
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
