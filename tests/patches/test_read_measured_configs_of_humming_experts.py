"""Tables of measured configs for Humming's experts: read for exactly what they were measured with, left alone otherwise."""

import contextlib
import itertools
import json
import math
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock, patch

LAYER = {
    "num_experts": 256,
    "shape_n": 2048,
    "shape_k": 4096,
    "a_dtype": "bfloat16",
    "b_dtype": "uint4",
    "sm_version": 90,
}
COMPUTE = {"use_batch_invariant": False, "use_f16_accum": False, "gemm_type": "indexed"}
OWN = [(0, 16, {"block_shape": (40, 128, 128)}), (16, 2048, {"block_shape": (8, 256, 128)})]
TUNED = {"block_shape": [8, 128, 128], "warp_shape": [8, 32, 64], "num_stages": 5}
DEVICE, VERSION = "NVIDIA H200", "0.1.17"


@dataclass
class TuningConfig:
    """As Humming's, which is not there on CPUs: it refuses what it does not know, and divides what it is given."""

    block_shape: tuple
    warp_shape: tuple
    num_stages: int = 2

    def __post_init__(self):
        self.num_threads = math.prod(self.block_shape) // math.prod(self.warp_shape) * 32


def written(folder, **changed):
    """A table as qualification/gpu/expert_kernels writes it, with changes."""
    from qualification.gpu.expert_kernels import choose

    ranges = changed.pop("ranges", [(0, 12, TUNED), (96, 384, TUNED)])
    said = {"layer": LAYER, "compute": COMPUTE, "device": DEVICE, "version": VERSION, **changed}
    file = Path(folder) / choose.file_name(LAYER, DEVICE)
    file.write_text(choose.table(**said, found=ranges))
    return file


@contextlib.contextmanager
def experts(folder, device=DEVICE, compiler=None):
    """
    Humming's experts of that layer with what they log, as far as a machine without a GPU has them.

    `compiler` is called in place of Humming's, with layer, compute config and configs as JSON.
    """
    import vllm.utils.humming
    from vllm.model_executor.layers.fused_moe.experts import fused_humming_moe as module
    from vllm.platforms import current_platform

    class Experts(module.HummingIndexedExperts):
        def __init__(self):
            self.humming_configs = dict.fromkeys(("w13", "w2"), SimpleNamespace(to_str=lambda: json.dumps(LAYER)))
            self.init_humming_moe()

        @staticmethod
        def humming_gemm_type():
            return SimpleNamespace(value="indexed")

    config = ModuleType("humming.config")
    vars(config)["TuningConfig"] = TuningConfig
    kernel = ModuleType("humming.kernel.humming")
    vars(kernel)["HummingKernel"] = SimpleNamespace(prepare_kernels=compiler or MagicMock())
    fakes = {"humming": ModuleType("humming"), config.__name__: config, kernel.__name__: kernel}
    variables = {"VLLM_TUNED_CONFIG_FOLDER": str(folder)} if folder else {}
    with contextlib.ExitStack() as stack:
        for one in (
            patch.dict(sys.modules, fakes | {"humming.kernel": ModuleType("humming.kernel")}),
            patch.dict(vars(vllm.utils.humming), get_heuristics_config=lambda **_: list(OWN)),
            patch.dict(os.environ, variables),
            patch.object(type(current_platform), "get_device_name", return_value=device),
            patch.object(module, "version", lambda _: VERSION, create=True),
        ):
            stack.enter_context(one)
        log = stack.enter_context(patch.object(module, "logger", MagicMock()))
        yield Experts(), log


def said(log):
    """What was logged, by level."""
    texts = {
        level: [one.args[0] % one.args[1:] for one in getattr(log, level).call_args_list]
        for level in ("info_once", "warning_once")
    }
    return texts["info_once"], texts["warning_once"]


def check_a_table_replaces_what_humming_chooses():
    with tempfile.TemporaryDirectory() as folder:
        file = written(folder)
        with experts(folder) as (made, log):
            expected = [
                (0, 12, TUNED),
                (12, 16, OWN[0][2]),
                (16, 96, OWN[1][2]),
                (96, 384, TUNED),
                (384, 2048, OWN[1][2]),
            ]
            assert [tuple(one) for one in made.w13_tuning_config] == expected, "Humming chose"
            assert json.loads(made.w2_tuning_config_str) == json.loads(json.dumps(expected))
            info, warnings = said(log)
            assert not warnings
            assert str(file) in info[0]


def check_a_table_of_anything_else_leaves_humming_alone():
    others = [
        {"version": "0.1.18"},
        {"device": "NVIDIA H200 NVL"},
        {"layer": LAYER | {"sm_version": 100}},
        {"compute": COMPUTE | {"use_f16_accum": True}},
    ]
    for changed in others:
        with tempfile.TemporaryDirectory() as folder:
            file = written(folder, **changed)
            with experts(folder) as (made, log):
                assert made.w13_tuning_config == OWN, changed
                info, warnings = said(log)
                assert not warnings
                assert str(file) in info[0], info
                assert next(iter(changed)) in info[0], info


def check_without_a_table_nothing_is_said():
    with tempfile.TemporaryDirectory() as folder:
        for one, device in ((None, DEVICE), (folder, DEVICE), (folder, "NVIDIA H100")):
            with experts(one, device) as (made, log):
                assert made.w13_tuning_config == OWN
                assert said(log) == ([], [])


def check_a_damaged_table_is_a_warning():
    with tempfile.TemporaryDirectory() as folder:
        whole = written(folder).read_text()
        cut = [whole[: len(whole) * part // 7] for part in range(7)]
    texts = [
        *cut,
        "[]",
        "7",
        "null",
        whole.replace("humming_version", "version"),
        whole.replace('"tuning_config": [', '"tuning_config": [3, '),
        "[" * 100_000,
        whole.replace('"num_stages": 5', '"num_stages": ' + "5" * 5000),
        "\udcff" + whole,
    ]
    broken = [
        [(0, 12, TUNED), (6, 24, TUNED)],
        [(12, 12, TUNED)],
        [(-1, 12, TUNED)],
        [("0", "12", TUNED)],
        [(0, 12, {**TUNED, "block_shape": [8, 128]})],
        [(0, 12, {**TUNED, "block_shape": [8, 128, "128"]})],
        [(0, 12, {**TUNED, "number_of_stages": 5})],
        [(0, 12, None)],
        [(0, 12)],
        [(0, 12, {**TUNED, "warp_shape": [0, 32, 64]})],
        [(0, 12, {**TUNED, "block_shape": 8})],
        [(0, 4096, TUNED)],
        [(0, 10**30, TUNED)],
    ]
    for text, found in [*((text, None) for text in texts), *((None, found) for found in broken)]:
        with tempfile.TemporaryDirectory() as folder:
            file = written(folder, ranges=found or [])
            if text is not None:
                file.write_text(text, encoding="utf-8", errors="surrogateescape")
            with experts(folder) as (made, log):
                assert made.w13_tuning_config == OWN, (text, found)
                info, warnings = said(log)
                assert not info
                assert len(set(warnings)) == 1
                assert str(file) in warnings[0]


def check_kernels_are_compiled_as_the_first_step_asks_for_them():
    with tempfile.TemporaryDirectory() as folder:
        written(folder)
        compiler = MagicMock()
        with experts(folder, compiler=compiler) as (made, _):
            assert compiler.call_count, "compiled by the first step"
            for made_of in (made.w13_tuning_config_str, made.w2_tuning_config_str):
                compiler.assert_any_call(json.dumps(LAYER), made.compute_config_str, made_of)
    with experts(None, compiler=MagicMock(side_effect=AssertionError("nothing to compile"))) as (made, log):
        assert made.w13_tuning_config == OWN
        assert said(log) == ([], [])


def check_a_table_whose_kernels_cannot_be_compiled_is_a_warning():
    errors = [RuntimeError("exit code 1"), ValueError("register budget exceeded"), AssertionError(), OSError("full")]
    for error in errors:
        with tempfile.TemporaryDirectory() as folder:
            file = written(folder)
            compiler = MagicMock(side_effect=error)
            for layer in range(3):  # the second and the third do not try again
                with experts(folder, compiler=compiler) as (made, log):
                    assert made.w13_tuning_config == made.w2_tuning_config == OWN, error
                    info, warnings = said(log)
                    assert not info
                    assert len(warnings) == (layer == 0)
                    assert all(
                        f"{file}, which cannot be used: {type(error).__name__}: {error}" in one for one in warnings
                    )
            assert compiler.call_count == 1


def check_a_folder_in_place_of_a_table_is_a_warning():
    with tempfile.TemporaryDirectory() as folder:
        file = written(folder)
        file.unlink()
        file.mkdir()
        with experts(folder) as (made, log):
            assert made.w13_tuning_config == OWN
            info, warnings = said(log)
            assert not info
            assert "IsADirectoryError" in warnings[0]


def check_every_number_of_rows_has_one_config():
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
    from vllm.model_executor.layers.fused_moe.experts import fused_humming_moe

    merge = vars(fused_humming_moe)["merge_tuned_humming_ranges"]
    edges = st.lists(st.integers(1, 60), unique=True, max_size=9).map(sorted)

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine
    @given(edges, edges, st.data())
    def holds(borders, ends, data):
        borders = [0, *borders, 1 << 30]
        own = [(low, high, f"own {low}") for low, high in itertools.pairwise(borders)]
        every = [(low, high, {**TUNED, "num_stages": low}) for low, high in zip([0, *ends], ends, strict=False)]
        tuned = [one for one in every if data.draw(st.booleans())]
        merged = merge(own, tuned)
        for rows in range(1, 70):
            here = [config for low, high, config in merged if low < rows <= high]
            asked = [config for low, high, config in tuned if low < rows <= high]
            assert here == (asked or [config for low, high, config in own if low < rows <= high])
        assert all(a[1] == b[0] for a, b in itertools.pairwise(merged))

    holds()


def test_a_table_replaces_what_humming_chooses(needs_patch):
    needs_patch("check_a_table_replaces_what_humming_chooses", without="Humming chose")


def test_a_table_of_anything_else_leaves_humming_alone(holds):
    holds("check_a_table_of_anything_else_leaves_humming_alone")


def test_without_a_table_nothing_is_said(holds):
    holds("check_without_a_table_nothing_is_said")


def test_a_damaged_table_is_a_warning(holds):
    holds("check_a_damaged_table_is_a_warning")


def test_kernels_are_compiled_as_the_first_step_asks_for_them(holds):
    holds("check_kernels_are_compiled_as_the_first_step_asks_for_them")


def test_a_table_whose_kernels_cannot_be_compiled_is_a_warning(holds):
    holds("check_a_table_whose_kernels_cannot_be_compiled_is_a_warning")


def test_a_folder_in_place_of_a_table_is_a_warning(holds):
    holds("check_a_folder_in_place_of_a_table_is_a_warning")


def test_every_number_of_rows_has_one_config(holds):
    holds("check_every_number_of_rows_has_one_config")
