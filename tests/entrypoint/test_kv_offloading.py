"""What a plan asks of vLLM's KV offloading, however it is written."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.kv_offloading import PACKAGES, SPECS, TIERING, TYPES, Offloading, offloading_of
from dsv4_serve.entrypoint.plan import Setting

GIB = 1 << 30
CONFIG = "kv-transfer-config"
EXTRA = f"{CONFIG}.kv_connector_extra_config"


def asked(values: dict[str, Any]) -> Offloading:
    return offloading_of({name: Setting(value, "test") for name, value in values.items()})


@given(st.integers(1, 4096), st.booleans(), st.lists(st.sampled_from(sorted(TYPES)), max_size=3))
def test_one_table_and_a_flag_for_each_key_are_read_the_same(gib: int, by_size: bool, types: list[str]) -> None:
    tiers = [{"type": kind, "root_dir": f"/kv/{at}"} for at, kind in enumerate(types)]
    extra = {"spec_name": TIERING, "secondary_tiers": tiers} | ({} if by_size else {"cpu_bytes_to_use": gib * GIB})
    base = {"kv-offloading-size": float(gib)} if by_size else {f"{CONFIG}.kv_connector": "OffloadingConnector"}
    one, each = asked(base | {EXTRA: extra}), asked(base | {f"{EXTRA}.{key}": value for key, value in extra.items()})
    assert one == each
    assert (one.gib, one.tiering, one.tiers) == (gib, True, tuple(tiers))
    assert one.folders == tuple(tier["root_dir"] for tier in tiers if tier["type"] == "fs")
    assert set(one.packages) == {PACKAGES[kind] for kind in types if kind in PACKAGES}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "kv-offloading-size": st.one_of(st.none(), st.booleans(), st.text(max_size=3), st.floats(0, 9)),
            "kv-offloading-backend": st.sampled_from(["native", "lmcache", "", 3]),
            f"{CONFIG}.kv_connector": st.sampled_from(["OffloadingConnector", "NixlConnector", None]),
            EXTRA: st.one_of(st.none(), st.text(max_size=3), st.dictionaries(st.just("secondary_tiers"), st.text())),
            f"{EXTRA}.secondary_tiers": st.one_of(st.none(), st.lists(st.one_of(st.text(max_size=2), st.just({})))),
        },
    )
)
def test_what_makes_no_sense_is_nothing(values: dict[str, Any]) -> None:
    found = asked(values)
    assert found.gib >= 0
    assert not found.folders
    assert not found.packages
    size = values.get("kv-offloading-size")
    native = values.get("kv-offloading-backend", "native") == "native"
    assert bool(found.gib) == (isinstance(size, float) and size > 0 and native)


def test_vllm_registers_these_tiers_and_imports_these_modules() -> None:
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("vllm")
    assert spec
    assert spec.submodule_search_locations
    tiering = Path(spec.submodule_search_locations[0], "v1/kv_offload/tiering")
    factory = (tiering / "factory.py").read_text()
    assert {line.split('"')[1] for line in factory.split("register_tier(\n")[1:]} == TYPES
    text = {kind: "".join(file.read_text() for file in (tiering / kind).rglob("*.py")) for kind in TYPES}
    assert {kind for kind in TYPES if "nixl" in text[kind] or "from kvcr" in text[kind]} == set(PACKAGES)
    assert TIERING in SPECS
    specs = (tiering.parent / "factory.py").read_text()
    assert {line.split('"')[1] for line in specs.split("register_spec(\n")[1:]} == SPECS
