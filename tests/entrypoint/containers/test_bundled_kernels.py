"""Kernel packs in a bundle: a folder, and a file of Compose that mounts it in every GPU replica."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dsv4_serve.entrypoint.cli.main import main
from dsv4_serve.entrypoint.containers import bundle
from tests.support.packs import cache, packed


def test_every_gpu_replica_of_compose_mounts_the_packs(tmp_path: Path) -> None:
    override = yaml.safe_load(bundle.OVERRIDE)["services"]
    services = yaml.safe_load(bundle.COMPOSE.read_text())["services"]
    assert set(override) == {name for name, one in services.items() if name.startswith("replica")}
    assert all(one["volumes"] == ["./kernels:/kernels:ro"] for one in override.values())
    assert all(one["environment"] == {"DSV4_KERNELS": "/kernels"} for one in override.values())


def test_packs_are_copied_and_without_one_nothing_is(tmp_path: Path) -> None:
    packed(cache(tmp_path / "cache"), tmp_path / "one.tar.xz")
    for name, packs in (("with", [tmp_path / "one.tar.xz"]), ("without", [])):
        (tmp_path / name).mkdir()
        bundle._copy_kernels(tmp_path / name, packs)
    assert (tmp_path / "with/kernels/one.tar.xz").read_bytes() == (tmp_path / "one.tar.xz").read_bytes()
    assert (tmp_path / "with/docker-compose.override.yml").exists()
    assert list((tmp_path / "without").iterdir()) == []


@pytest.mark.parametrize(("name", "message"), [("pack.xz", "rename it"), ("pack.tar.xz", "is not a valid kernel pack")])
def test_what_is_no_pack_is_refused_before_an_image_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    (tmp_path / name).write_bytes(b"something")
    assert main(["bundle", "--out", str(tmp_path / "out"), "--kernels", str(tmp_path / name)]) == 78
    assert message in capsys.readouterr().err
