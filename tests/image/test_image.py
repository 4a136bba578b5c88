"""The CPU image, inside: who runs, what is there, what can be written."""

from __future__ import annotations

import hashlib
import json

import pytest

from .conftest import ROOT, Image, build, podman

pytestmark = pytest.mark.slow
FACTS = "/usr/share/dsv4"

STALE = """
import importlib.util, json, pathlib, vllm
root = pathlib.Path(importlib.util.find_spec("vllm").origin).parent.parent
build = json.loads(pathlib.Path("/usr/share/dsv4/build.json").read_text())
files = {root / name for patch in build["patches"] for name in patch["files"] if name.endswith(".py")}
for file in sorted(files):
    cached = pathlib.Path(importlib.util.cache_from_source(file)).read_bytes()
    assert int.from_bytes(cached[4:8], "little") == 0b01, f"{file} is compared with its source by time, or by hash"
    assert cached[8:16] == importlib.util.source_hash(file.read_bytes()), f"{file} has stale bytecode"
print(len(files))
"""

COMPILE = """
set -e
cd /tmp
printf '#include <Python.h>\\nstatic struct PyModuleDef d = {PyModuleDef_HEAD_INIT, "probe"};\\n' >probe.c
printf 'PyMODINIT_FUNC PyInit_probe(void) { return PyModule_Create(&d); }\\n' >>probe.c
gcc -shared -fPIC $(python -c 'import sysconfig; print("-I" + sysconfig.get_path("include"))') probe.c -o probe.so
python -c 'import probe; print(probe.__name__)'
"""


def test_it_runs_as_a_user_with_a_name_and_without_root(image):
    assert image.config()["User"] == "2000:0"
    done = podman("run", "--rm", image.name, "id")
    assert done.stdout.strip() == "uid=2000(dsv4) gid=0(root) groups=0(root)"


def test_its_health_is_probed_without_a_shell(image):
    health = image.config()["Healthcheck"]
    assert health["Test"] == ["CMD", "dsv4", "probe", "live"]
    assert health["StartPeriod"] == 60_000_000_000  # nanoseconds


def test_tini_is_the_first_process_and_serve_the_default(image):
    assert image.config()["Entrypoint"] == ["tini", "-s", "--", "dsv4"]
    assert image.config()["Cmd"] == ["serve"]


@pytest.mark.parametrize("user", ["2000:0", "12345:0", "12345:12345"])
def test_nothing_but_the_cache_and_tmp_can_be_written(image, user):
    search = "find / -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o -type d -writable -print"
    found = image.run("sh", "-c", search, user=user, check=False).stdout.split()
    assert found == ["/tmp", "/var/cache/dsv4"]


def test_a_user_without_a_name_has_a_home_and_python_names_it(image):
    script = "import getpass, pathlib; (pathlib.Path.home() / 'x').write_text('x'); print(getpass.getuser(), pathlib.Path.home())"
    assert image.run("python", "-c", script).stdout.strip() == "dsv4 /var/cache/dsv4"


def test_build_json_says_what_was_built_from_what(image):
    build_json = image.read_json(f"{FACTS}/build.json")
    assert build_json["versions"]["vllm"] == "0.32.0+cpu"
    assert build_json["versions"]["torch"] == "2.13.0+cpu"
    assert build_json["commit"] == image.config()["Labels"]["org.opencontainers.image.revision"]
    assert {patch["state"] for patch in build_json["patches"]} == {"applied"}
    for name, digest in build_json["locks"].items():
        assert hashlib.sha256((ROOT / "requirements" / name).read_bytes()).hexdigest() == digest


def test_the_bill_of_materials_names_every_python_and_debian_package(image):
    bill = image.read_json(f"{FACTS}/sbom.json")
    assert bill["bomFormat"] == "CycloneDX"
    purls = [part.get("purl", "") for part in bill["components"]]
    listing = "import importlib.metadata as m, json; print(json.dumps(sorted({d.metadata['Name'] for d in m.distributions()})))"
    distributions = json.loads(image.run("python", "-c", listing).stdout)
    named = {part["name"].lower().replace("_", "-") for part in bill["components"]}
    assert not {name for name in distributions if name.lower().replace("_", "-") not in named}
    installed = image.run("dpkg-query", "-W", "-f", "${binary:Package}\n").stdout.split()
    assert sum(purl.startswith("pkg:deb/debian/") for purl in purls) == len(installed)


def test_the_patches_are_verified_in_the_image_as_it_runs(image):
    said = image.run("dsv4", "patch", "verify", "--series", "0.32.0-cpu").stdout
    assert said.startswith("verified (patches: ")


def test_no_patched_module_has_bytecode_of_its_unpatched_source(image):
    assert int(image.run("python", "-c", STALE).stdout) > 10


def test_kernels_can_be_compiled_just_in_time(image):
    assert image.run("sh", "-c", COMPILE).stdout.strip() == "probe"


def test_vllms_compiled_parts_find_their_libraries(image):
    image.run("python", "-c", "import vllm._C")


def test_what_only_the_build_needs_is_not_there(image):
    script = "command -v pip pip3 uv git curl wget; python -c 'import pip'; find /tools /src /wheels /etc/pip.conf /run/secrets -type f -size +0"
    assert image.run("sh", "-c", script, check=False).stdout == ""


def test_another_command_runs_as_it_stands(image):
    assert image.run("vllm", "--version").stdout.split()[-1] == "0.32.0+cpu"


def test_the_same_commit_gives_the_same_image(image):
    """Not the same id: buildah 1.39 writes the random id of its working container into the configuration."""
    again = Image(build("--no-cache"))
    for part in ("RootFS", "Config", "History", "Created", "Architecture"):
        assert again.inspect()[part] == image.inspect()[part]
