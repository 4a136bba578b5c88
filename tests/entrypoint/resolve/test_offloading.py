"""Tiers behind host memory that vLLM ignores, or with which it ends, are refused with what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

from dsv4_serve.entrypoint.errors import ConfigError
from tests.support.plans import request, resolved

WANTED = {"profile": "64k", "hardware": "h200", "model": "w4a16"}
SIZE = {"kv-offloading-size": 64.0}
EXTRA = "kv-transfer-config.kv_connector_extra_config"
CONNECTOR = {"kv-transfer-config.kv_connector": "OffloadingConnector", "kv-transfer-config.kv_role": "kv_both"}
SPEC = {"spec_name": "TieringOffloadingSpec"}
FILES = {"secondary_tiers": [{"type": "fs", "root_dir": "/kv"}]}


@pytest.mark.parametrize(
    ("size", "extra", "message"),
    [
        (SIZE, FILES, r'ignores secondary_tiers without spec_name; set "spec_name" to "TieringOffloadingSpec" there'),
        (
            SIZE,
            FILES | {"spec_name": "CPUOffloadingSpec"},
            "ignores secondary_tiers with spec_name CPUOffloadingSpec; set",
        ),
        (
            SIZE,
            FILES | {"spec_name": "TieredSpec"},
            "no spec_name 'TieredSpec'; needed: one of CPUOffloadingSpec, Tiering",
        ),
        (SIZE, FILES | {"spec_name": ["CPUOffloadingSpec"]}, "no spec_name \\['CPUOffloadingSpec'\\]; needed"),
        (CONNECTOR, SPEC | FILES, "has no size; set --kv-offloading-size to GiB"),
        (CONNECTOR, {}, "has no size; set --kv-offloading-size to GiB"),
        (CONNECTOR, {"cpu_bytes_to_use": -5}, "cpu_bytes_to_use = -5 is not a size; set"),
        (CONNECTOR, {"cpu_bytes_to_use": float("inf")}, "cpu_bytes_to_use = inf is not a size; set"),
        (CONNECTOR, {"cpu_bytes_to_use": 10**400}, "cpu_bytes_to_use = 10{39} is not a size; set"),
        (SIZE, {"block_size": 256}, "ends with block_size: .*; leave block_size out"),
        (SIZE, SPEC | FILES | {"store_threshold": 2}, "store_threshold is not supported"),
        (SIZE, SPEC | {"secondary_tiers": "/kv"}, "secondary_tiers is not a list of tables; write"),
        (SIZE, SPEC | {"secondary_tiers": ["/kv"]}, "secondary_tiers is not a list of tables; write"),
        (SIZE, SPEC | {"secondary_tiers": [{"type": "fs_python"}]}, "no tier of type 'fs_python'; needed: one of"),
        (SIZE, SPEC | {"secondary_tiers": [{"type": ["fs"]}]}, "no tier of type \\['fs'\\]; needed: one of"),
        (SIZE, SPEC | {"secondary_tiers": [{"type": "fs", "root_dir": 5}]}, 'names no folder; set its "root_dir"'),
        (SIZE, SPEC | {"secondary_tiers": [{"type": "fs"}]}, 'names no folder; set its "root_dir"'),
    ],
)
def test_what_cannot_work_is_refused(size: dict[str, Any], extra: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved(request(**WANTED, **size, **{EXTRA: extra}))


@pytest.mark.parametrize("size", [0, 0.0, -1.0])
def test_no_size_is_no_way_to_switch_it_off(size: float) -> None:
    with pytest.raises(ConfigError, match="cpu_bytes_to_use must be specified`; leave --kv-offloading-size out"):
        resolved(request(**WANTED, **{"kv-offloading-size": size}))


@pytest.mark.parametrize("size", [float("inf"), 1e9])
def test_a_size_that_no_host_has_is_refused(size: float) -> None:
    with pytest.raises(ConfigError, match="no host has .* GiB of memory; write the size in GiB"):
        resolved(request(**WANTED, **{"kv-offloading-size": size}))


def test_a_skipped_refusal_counts_no_memory() -> None:
    for size in (-1.0, float("inf")):
        plan = resolved(request(**WANTED, **{"kv-offloading-size": size, "skip": ("kv-offloading",)}))
        assert plan.value("kv-offloading-size") == size


@pytest.mark.parametrize(
    "name", ["a/b", "../a", "a\0b", "a\ud800", "ä" * 119, "x" * 238], ids=lambda name: ascii(name)[:12]
)
def test_an_engine_id_that_names_no_file_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="engine_id cannot be part of a file's name.*; leave engine_id out"):
        resolved(request(**WANTED, **SIZE, **{"kv-transfer-config.engine_id": name}))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"kv-transfer-config.kv_connector": "OffloadingConnector"}, 'without kv_role; set "kv_role" there'),
        (CONNECTOR | {EXTRA: 5}, "kv_connector_extra_config is not a table; write it as"),
    ],
)
def test_what_the_connector_lacks_is_refused(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved(request(**WANTED, **flags))


def test_the_other_connector_is_refused_as_its_memory_is_not_counted() -> None:
    with pytest.raises(ConfigError, match="VLLM_USE_SIMPLE_KV_OFFLOAD takes another connector.*; leave .* unset"):
        resolved(request(**WANTED, **SIZE, operator={"VLLM_USE_SIMPLE_KV_OFFLOAD": "1"}))
    assert resolved(request(**WANTED, **SIZE, operator={"VLLM_USE_SIMPLE_KV_OFFLOAD": "0"}))
    assert resolved(request(**WANTED, operator={"VLLM_USE_SIMPLE_KV_OFFLOAD": "1"}))


@pytest.mark.parametrize(
    "flags",
    [
        {},
        SIZE,
        SIZE | {EXTRA: SPEC | FILES},
        SIZE | {EXTRA: SPEC},
        SIZE | {"kv-transfer-config.engine_id": "ä \n" + "x" * 233},
        {"kv-transfer-config.engine_id": "a/b"},
        SIZE | {EXTRA: SPEC | {"secondary_tiers": [{"type": "Own", "module_path": "own.tiers"}]}},
        SIZE | {EXTRA: {"spec_name": "OwnSpec", "spec_module_path": "own.spec", **FILES}},
        CONNECTOR | {"kv-transfer-config.kv_connector": "NixlConnector", EXTRA: FILES},
        CONNECTOR | {EXTRA: SPEC | FILES | {"cpu_bytes_to_use": 1 << 36}},
        CONNECTOR | {EXTRA: {"cpu_bytes_to_use": str(1 << 36)}},
    ],
)
def test_what_works_is_passed_on(flags: dict[str, Any]) -> None:
    plan = resolved(request(**WANTED, **flags))
    assert {name: plan.value(name) for name in flags} == flags


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_refuses_the_same_and_reads_no_tiers_without_their_spec() -> None:
    """Its own classes, on this machine without a GPU."""
    import inspect

    from vllm.config import KVTransferConfig
    from vllm.v1.kv_offload.cpu import spec as host_memory
    from vllm.v1.kv_offload.tiering.factory import SecondaryTierFactory
    from vllm.v1.kv_offload.tiering.spec import TieringOffloadingSpec

    assert "secondary_tiers" not in inspect.getsource(host_memory)
    assert "store_threshold is not supported" in inspect.getsource(TieringOffloadingSpec.get_manager)
    with pytest.raises(ValueError, match="Unknown secondary tier type: 'fs_python'"):
        SecondaryTierFactory.get_tier_class({"type": "fs_python"})
    with pytest.raises(ValueError, match="Please specify kv_role when kv_connector is set"):
        KVTransferConfig(kv_connector="OffloadingConnector")
    with pytest.raises(ValueError, match="should be a valid dictionary"):
        KVTransferConfig(kv_connector_extra_config=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tier = SecondaryTierFactory.get_tier_class({"type": "fs"})
    assert inspect.signature(tier).parameters["root_dir"].default is inspect.Parameter.empty
