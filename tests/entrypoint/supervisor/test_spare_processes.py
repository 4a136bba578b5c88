"""Which processes import in advance: as many as the shape of one server has, where that is known."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.plan import Plan, Setting, Value
from dsv4_serve.entrypoint.resolve.wording import NOT_READ
from dsv4_serve.entrypoint.supervisor import spare_processes
from dsv4_serve.entrypoint.supervisor.spare_processes import BREAKABLE, PATCH, VARIABLE
from dsv4_serve.patcher.series import locate, newest, read_series


def test_the_patch_that_reads_the_variable_is_one_of_the_series() -> None:
    assert PATCH in [patch.name for patch in read_series(locate(newest())).patches]


@pytest.mark.parametrize(
    ("flags", "spares"),
    [
        ({}, "1"),
        ({"tensor-parallel-size": 2}, "1,2"),
        ({"tensor-parallel-size": 4, "enable-expert-parallel": True}, "1,4"),
        ({"tensor-parallel-size": 2, "pipeline-parallel-size": 2}, "1,4"),
        ({"tensor-parallel-size": 2, "api-server-count": 1}, "1,2"),
        ({"distributed-executor-backend": "mp"}, "1,1"),
        ({"distributed-executor-backend": "uni"}, "1"),
        ({"tensor-parallel-size": 2, "distributed-executor-backend": "ray"}, None),
        ({"tensor-parallel-size": 2, "api-server-count": 2}, None),
        ({"tensor-parallel-size": 2, "numa-bind": True}, None),
        ({"tensor-parallel-size": 8, "nnodes": 2}, None),
        ({"data-parallel-size": 2}, None),
        ({"tensor-parallel-size": 2, "headless": True}, None),
    ],
)
def test_spares_follow_the_shape(flags: dict[str, Value], spares: str | None) -> None:
    settings = {name: Setting(value, "test") for name, value in flags.items()}
    assert spare_processes.variables(Plan({}, settings, {})).get(VARIABLE) == spares


@pytest.mark.parametrize(
    ("choices", "gpus", "value"),
    [
        ({"checkpoint": "deepseek-v4-flash, w4a16, an MTP head in BF16 (1.1 GiB), 155 GiB"}, 2, "1"),
        ({"checkpoint": "deepseek-v4.1-flash, native, a DSpark drafter, 160 GiB"}, 2, "1"),
        ({}, 2, "1"),
        ({"checkpoint": NOT_READ}, 2, "1"),
        ({"checkpoint": "deepseek-v4-flash-vision, fp8-mxfp4, a DSpark drafter, 160 GiB"}, 2, "1"),
        ({"checkpoint": "LlamaForCausalLM, BF16, no drafter, 0.0 GiB"}, 2, None),
        ({"checkpoint": "deepseek-v4-flash, w4a16, an MTP head in BF16 (1.1 GiB), 155 GiB"}, 0, None),
    ],
)
def test_what_vllm_sets_for_deepseek_v4_is_set_before_the_spares_import(
    choices: dict[str, Value], gpus: int, value: str | None
) -> None:
    flags = {"tensor-parallel-size": gpus} if gpus else {"data-parallel-size": 2}
    plan = Plan(
        {name: Setting(text, "test") for name, text in choices.items()},
        {name: Setting(number, "test") for name, number in flags.items()},
        {},
    )
    assert spare_processes.variables(plan).get(BREAKABLE) == value
