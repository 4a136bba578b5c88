"""The folder of tables that a hardware file names: found as profile files are, and refused where it is of no use."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.catalog import tuned_kernels
from dsv4_serve.entrypoint.catalog.catalog import SHIPPED, Catalog
from dsv4_serve.entrypoint.catalog.tuned_kernels import KernelTable
from dsv4_serve.entrypoint.errors import ConfigError
from qualification.gpu.expert_kernels import choose
from tests.support.plans import CATALOG
from tests.support.program import ROOT

KEY = "tuned-kernels = 'mine-kernels'\n"
FILE = "humming_moe,E=256,N=4096,K=1024,a_dtype=float8e4m3,b_dtype=float4e2m1,device_name=NVIDIA_MINE.json"


def catalog(folder: Path, text: str = KEY, *tables: str) -> Catalog:
    """A catalog with a hardware file of one's own, and a folder of tables where it has one."""
    (folder / "hardware").mkdir(exist_ok=True)
    (folder / "hardware/mine.toml").write_text(f"extends = 'h200'\nnvml-names = ['NVIDIA MINE']\n{text}")
    for name in tables:
        (folder / "hardware" / name).parent.mkdir(exist_ok=True)
        (folder / "hardware" / name).write_text("{}")
    return Catalog([folder])


def test_h200_names_its_folder_and_no_other_hardware_has_one() -> None:
    found = {name: CATALOG.hardware(name, "").get("tuned_kernels") for name in CATALOG.names("hardware")}
    shipped = str(SHIPPED / "hardware/h200-kernels")
    assert {name for name, folder in found.items() if folder} == {"h200", "h200-nvl"}
    assert found["h200"] == found["h200-nvl"] == shipped  # no table is for the second one's GPUs
    every = list(SHIPPED.glob("hardware/*/*"))
    assert {str(file.parent) for file in every} == {shipped}
    assert all(file.stat().st_mode & stat.S_IROTH for file in every)
    assert len(list(tuned_kernels.tables(Path(shipped)))) == len(every) == 4


def test_a_name_is_read_as_the_program_that_measures_writes_it(tmp_path: Path) -> None:
    layer = {"num_experts": 384, "shape_n": 7168, "shape_k": 1536, "a_dtype": "bfloat16", "b_dtype": "uint4"}
    (tmp_path / choose.file_name(layer, "NVIDIA RTX PRO 6000")).touch()
    for other in ("E=256,N=4096,device_name=NVIDIA_H200.json", "humming_moe,odd.json", "README.md"):
        (tmp_path / other).touch()
    [found] = tuned_kernels.tables(tmp_path)
    named = tmp_path / choose.file_name(layer, "NVIDIA RTX PRO 6000")
    assert found == KernelTable(1536, "bfloat16", "uint4", "NVIDIA RTX PRO 6000", named)


def test_the_weights_that_share_a_scale_are_those_of_the_layer_in_a_table(tmp_path: Path) -> None:
    shipped = {(one.weight_type, one.group_size()) for one in tuned_kernels.tables(SHIPPED / "hardware/h200-kernels")}
    assert shipped == {("uint4", 128), ("float4e2m1", 32)}
    (tmp_path / FILE).touch()
    [table] = tuned_kernels.tables(tmp_path)
    for text in ("", "{}", "[]", '{"layer_config": 1}', '{"layer_config": {"weight_scale_group_size": "128"}}'):
        (tmp_path / FILE).write_text(text)
        assert table.group_size() == 0, text
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    assert table.group_size() == 0


def test_ones_own_folder_lies_beside_ones_own_file(tmp_path: Path) -> None:
    own = catalog(tmp_path, KEY, f"mine-kernels/{FILE}").hardware("mine", "")
    assert own.get("tuned_kernels") == str(tmp_path / "hardware/mine-kernels")
    assert own.file_of("tuned_kernels") == str(tmp_path / "hardware/mine.toml")


def test_a_copy_of_a_shipped_file_has_the_shipped_tables(tmp_path: Path) -> None:
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware/h200.toml").write_text((SHIPPED / "hardware/h200.toml").read_text())
    assert Catalog([tmp_path]).hardware("h200", "").get("tuned_kernels") == str(SHIPPED / "hardware/h200-kernels")


@pytest.mark.parametrize(
    ("text", "tables", "told"),
    [
        (KEY, (), "there is no folder {folder}, and no shipped one of that name; put tables"),
        (KEY, ("mine-kernels/README.md",), "{folder} has no file humming_moe,*.json; put tables"),
        (
            KEY,
            (f"mine-kernels/{FILE.replace('MINE', 'H200')}",),
            "{folder} has tables for NVIDIA H200 alone; put tables",
        ),
        ("tuned-kernels = 'h200-kernels'\n", (), "h200-kernels has tables for NVIDIA H200 alone; put tables"),
        ("tuned-kernels = '../else'\n", (), "tuned-kernels = '../else' is not valid: name a folder beside"),
        ("tuned-kernels = '/else'\n", (), "tuned-kernels = '/else' is not valid: name a folder beside"),
    ],
    ids=["missing", "empty", "another", "shipped", "above", "absolute"],
)
def test_a_folder_that_is_of_no_use_is_refused(tmp_path: Path, text: str, tables: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        catalog(tmp_path, text, *tables).hardware("mine", "")
    said = str(refused.value)
    assert said.startswith(f"{tmp_path}/hardware/mine.toml: tuned-kernels = ")
    assert told.format(folder=tmp_path / "hardware/mine-kernels") in said
    assert ("remove the key" in said) == ("put tables" in told)


def test_tables_have_to_fit_gpus_that_a_file_inherits_too(tmp_path: Path) -> None:
    for name, text in (("first", "extends = 'h200'\n" + KEY), ("second", "extends = 'first'\n")):
        (tmp_path / "hardware/mine-kernels").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"hardware/{name}.toml").write_text(text)
    (tmp_path / "hardware/mine-kernels" / FILE).touch()
    for name in ("first", "second"):
        with pytest.raises(ConfigError, match=r"hardware/first\.toml: .* has tables for NVIDIA MINE alone; put tables"):
            Catalog([tmp_path]).hardware(name, "")
    (tmp_path / "hardware/mine-kernels" / FILE.replace("MINE", "H200")).touch()
    assert Catalog([tmp_path]).hardware("second", "").get("tuned_kernels") == str(tmp_path / "hardware/mine-kernels")


def read_by_another_user(*folders: Path) -> str:
    """What `dsv4` says of the hardware `mine` to a user who is neither root nor the owner."""
    for folder in (folders[0], *folders[0].parents[:-1]):
        folder.chmod(folder.stat().st_mode | 0o011)
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom dsv4_serve.entrypoint.catalog.catalog import Catalog\n"
        "from dsv4_serve.entrypoint.errors import ConfigError\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n    print(Catalog([Path(each) for each in sys.argv[1:]]).hardware('mine', '').get('tuned_kernels'))\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", program, *folders]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60).stdout.strip()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_folder_that_this_user_cannot_read_is_refused(tmp_path: Path) -> None:
    catalog(tmp_path, KEY, f"mine-kernels/{FILE}")
    tables = tmp_path / "hardware/mine-kernels"
    for mode in (0o700, 0o711, 0o744):
        tables.chmod(mode)
        where = f"{tmp_path}/hardware/mine.toml: tuned-kernels = 'mine-kernels'"
        told = f"{where}: this user cannot read {tables}; run `chmod -R a+rX` on it, or remove the key."
        assert read_by_another_user(tmp_path) == told
    tables.chmod(0o755)
    assert read_by_another_user(tmp_path) == str(tables)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_folder_of_others_that_this_user_cannot_read_hides_no_answer(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    catalog(tmp_path / "own")
    (tmp_path / "others/hardware").mkdir(parents=True)
    (tmp_path / "others/hardware").chmod(0o700)
    said = read_by_another_user(tmp_path / "own", tmp_path / "others")
    assert "there is no folder" in said


def test_an_empty_name_is_none(tmp_path: Path) -> None:
    assert catalog(tmp_path, "tuned-kernels = ''\n").hardware("mine", "").get("tuned_kernels") == ""
