"""Tiers behind host memory that vLLM ignores, or with which it ends, are refused with what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

from dsv4_serve.entrypoint.errors import ConfigError
from tests.support.plans import request, resolved

WANTED = {"profile": "64k", "hardware": "h200", "model": "w4a16"}
SIZE = {"kv-offloading-size": 64.0}
EXTRA = "kv-transfer-config.kv_connector_extra_config"
SPEC = {"spec_name": "TieringOffloadingSpec"}
FILES = {"secondary_tiers": [{"type": "fs", "root_dir": "/kv"}]}


@pytest.mark.parametrize(
    ("size", "extra", "message"),
    [
        (SIZE, FILES, r'ignores secondary_tiers without spec_name; set "spec_name" to "TieringOffloadingSpec" there'),
        ({"kv-transfer-config.kv_connector": "OffloadingConnector"}, SPEC | FILES, "has no size; set --kv-offloading-"),
        (SIZE, SPEC | FILES | {"store_threshold": 2}, "store_threshold is not supported"),
        (SIZE, SPEC | {"secondary_tiers": "/kv"}, "secondary_tiers is not a list of tables; write"),
        (SIZE, SPEC | {"secondary_tiers": ["/kv"]}, "secondary_tiers is not a list of tables; write"),
        (SIZE, SPEC | {"secondary_tiers": [{"type": "fs_python"}]}, "no tier of type 'fs_python'; needed: one of"),
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


@pytest.mark.parametrize(
    "flags",
    [
        {},
        SIZE,
        SIZE | {EXTRA: SPEC | FILES},
        SIZE | {EXTRA: SPEC},
        SIZE | {EXTRA: SPEC | {"secondary_tiers": [{"type": "Own", "module_path": "own.tiers"}]}},
        SIZE | {EXTRA: {"spec_name": "OwnSpec", "spec_module_path": "own.spec", **FILES}},
        {"kv-transfer-config.kv_connector": "NixlConnector", EXTRA: FILES},
        {
            "kv-transfer-config.kv_connector": "OffloadingConnector",
            EXTRA: SPEC | FILES | {"cpu_bytes_to_use": 1 << 36},
        },
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

    from vllm.v1.kv_offload.cpu import spec as host_memory
    from vllm.v1.kv_offload.tiering.factory import SecondaryTierFactory
    from vllm.v1.kv_offload.tiering.spec import TieringOffloadingSpec

    assert "secondary_tiers" not in inspect.getsource(host_memory)
    assert "store_threshold is not supported" in inspect.getsource(TieringOffloadingSpec.get_manager)
    with pytest.raises(ValueError, match="Unknown secondary tier type: 'fs_python'"):
        SecondaryTierFactory.get_tier_class({"type": "fs_python"})
    tier = SecondaryTierFactory.get_tier_class({"type": "fs"})
    assert inspect.signature(tier).parameters["root_dir"].default is inspect.Parameter.empty
