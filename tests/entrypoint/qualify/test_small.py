"""The small checkpoint is served with every setting of the plan."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.bench.options import ServeOptions
from dsv4_serve.entrypoint.cli import parser
from dsv4_serve.entrypoint.cli.request import resolved
from dsv4_serve.entrypoint.plan import TUNED_KERNELS
from dsv4_serve.entrypoint.qualify import checkpoint, small
from dsv4_serve.entrypoint.qualify.box import Box


@pytest.fixture(autouse=True)
def _environment_without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables that vLLM sets when it is imported, perhaps by a test before."""
    for name in [
        name for name in os.environ if name.startswith(("PYTORCH_", "TILELANG_", "TORCH", "TRITON_", "VLLM_"))
    ]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("profile", "model", "hardware"),
    [
        ("524k", "w4a16", "h200"),
        ("64k", "flash-0731-nvfp4", "rtx-pro-6000"),
        ("64k-dp", "flash", "h200"),
        ("pro", "pro-nvfp4", "b300"),
    ],
)
def test_the_small_checkpoint_changes_nothing_of_the_plan_but_the_model(
    make_box: Callable[..., Box],
    tmp_path: Path,
    profile: str,
    model: str,
    hardware: str,
) -> None:
    box = make_box(profile=profile, model=model, hardware=hardware)
    box = dataclasses.replace(box, serve=ServeOptions({"hardware": hardware, "profile": profile}))
    folder = checkpoint.write(tmp_path, checkpoint.layout_of(box.selection), tiny=True).folder
    options, flags = parser.parse(["serve", *small.served(box, folder, small.GATE).argv()])
    plan = resolved(options, flags)[1]
    changed = {name for name in {*box.plan.flags, *plan.flags} if box.plan.value(name) != plan.value(name)}
    assert changed == {"model"}
    named = {name: value for name, value in box.plan.environment().items() if name != TUNED_KERNELS}
    assert plan.environment() == named  # no table is for experts as small as these
