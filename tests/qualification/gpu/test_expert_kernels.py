"""Schedules of Humming's experts: which are tried, what a measurement writes, and what a table is made of."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import os
import struct
import sys
import time
import types
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qualification.gpu.expert_kernels import __main__ as program
from qualification.gpu.expert_kernels import bench, choose, cubin, kernels, layers, measure, schedules
from qualification.gpu.expert_kernels.layers import Layer
from qualification.gpu.expert_kernels.schedules import Schedule

INPUTS = [(False, False), (True, True), (True, False)]
"""Whether they are FP8, and have scales of groups."""
HERE = [Layer(form, sublayer, ways) for form in layers.FORMATS for sublayer in layers.SUBLAYERS for ways in (1, 2, 4)]


@pytest.mark.parametrize("layer", HERE, ids=str)
def test_all_gpus_together_hold_each_weight_once(layer: Layer) -> None:
    assert Layer.parse(str(layer)) == layer
    whole = Layer(layer.format, layer.sublayer, 1)
    assert layer.expert_bytes * layer.ways == whole.expert_bytes
    assert math.prod(layer.shape) * layer.ways == math.prod(whole.shape)


@pytest.mark.parametrize("name", ["mxfp4,w13", "mxfp4,w13,3", "mxfp4,w3,2", "fp16,w2,2", "mxfp4,w2,two"])
def test_other_layers_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Layer.parse(name)


@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 5))
def test_a_token_goes_to_six_experts_and_routes_differ(tokens: int, count: int, seed: int) -> None:
    found = layers.routes(tokens, count, seed)
    assert found.shape == (count, tokens, 6)
    assert all(len(set(token.tolist())) == 6 for route in found for token in route)
    assert 0 <= found.min() <= found.max() < 256
    assert len({json.dumps(route.tolist()) for route in found}) == count
    assert torch.equal(found, layers.routes(tokens, count, seed))


def test_routes_are_uniform() -> None:
    count = layers.routes(256, 50, 1).flatten().bincount(minlength=256).double()
    assert abs(count.mean() - 300) < 1e-9
    assert 0.8 < count.var() / (300 * (1 - 6 / 256)) < 1.25  # as of independent draws


@given(st.lists(st.integers(0, 255), min_size=6, max_size=6, unique=True), st.sampled_from(HERE))
def test_experts_are_read_once_however_many_tokens_go_there(experts: list[int], layer: Layer) -> None:
    one, many = (layer.bytes_moved(torch.tensor([experts] * tokens)) for tokens in (1, 9))
    weights = 6 * layer.expert_bytes
    assert weights < one
    assert (many - weights) == pytest.approx(9 * (one - weights))


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "fans_out"),
    [
        ("mxfp4-fp8,w13,2", 4096 * 33 / 32, 6 * 2048 * 2, 6),
        ("mxfp4-fp8,w2,2", 6 * 1024 * 33 / 32, 6 * 4096 * 2, 1),
        ("mxfp4-fp8token,w13,2", 4096 + 4, 6 * 2048 * 2, 6),
        ("mxfp4-fp8token,w2,2", 6 * (1024 + 4), 6 * 4096 * 2, 1),
        ("int4,w13,1", 4096 * 2, 6 * 4096 * 2, 6),
        ("mxfp4,w2,4", 6 * 512 * 2, 6 * 4096 * 2, 1),
    ],
)
def test_bytes_of_one_token(name: str, inputs: float, outputs: int, fans_out: int) -> None:
    """FP8 inputs have a scale of four bytes for 128, or for a row; `w2` reads a row for each of a token's six experts."""
    layer = Layer.parse(name)
    assert layer.top_k == fans_out
    assert layer.bytes_moved(torch.tensor([[3, 1, 4, 15, 9, 2]])) == 6 * layer.expert_bytes + inputs + outputs


def tile(**changed: Any) -> Schedule:
    """Return a schedule."""
    made = {
        "mma_type": "wgmma", "block_shape": (8, 256, 128), "warp_shape": (8, 64, 64), "num_stages": 4,
        "num_ctas_per_sm": 2, "use_stream_k": False, "use_warp_spec": False, "use_tma": False,
    }  # fmt: skip
    return made | changed


def test_proposals_have_names_of_their_own_and_nest() -> None:
    found = list(schedules.proposed())
    assert len({schedules.name(one) for one in found}) == len(found)
    for one in found:
        assert all(block % warp == 0 for block, warp in zip(one["block_shape"], one["warp_shape"], strict=True))
    assert {one["block_shape"][0] for one in found} == set(schedules.ROWS)


def test_a_schedule_is_worthwhile_that_loads_far_enough_ahead() -> None:
    deep = tile()
    assert schedules.threads(deep) == 256
    assert schedules.threads(tile(use_warp_spec=True)) == 384
    assert schedules.in_flight(deep) == 2 * 3 * 256 * 128 // 2
    assert schedules.worthwhile(deep)
    assert not schedules.worthwhile(tile(num_stages=3, num_ctas_per_sm=1))
    assert not schedules.worthwhile(tile(warp_shape=(8, 16, 64), block_shape=(8, 256, 256)))
    assert schedules.fits(deep, 113 * 1024)
    assert not schedules.fits(deep, 114 * 1024)
    assert not schedules.fits(tile(num_ctas_per_sm=9), 1024)


def test_of_stages_the_most_is_kept() -> None:
    found = schedules.deepest([tile(num_stages=3), tile(num_stages=5), tile(num_stages=4), tile(num_ctas_per_sm=3)])
    assert [(one["num_stages"], one["num_ctas_per_sm"]) for one in found] == [(5, 2), (4, 3)]


def test_thinning_keeps_a_member_of_each_family_before_a_second_one() -> None:
    found = list(schedules.proposed())
    kept = schedules.thinned(found)
    assert len({schedules.name(one) for one in kept}) == len(kept) <= 150
    names = {schedules.name(one) for one in found}
    for rows, most in schedules.ROWS.items():
        here = [one for one in kept if one["block_shape"][0] == rows and one["mma_type"] == "wgmma"]
        assert len(here) == most
        times = Counter(schedules.family(one) for one in here)
        assert max(times.values()) == 1  # there are more families than places
        assert {schedules.name(one) for one in here} <= names
    few = schedules.thinned([one for one in found if schedules.name(one).startswith("8x256x128/8x64x64")])
    assert len({schedules.family(one) for one in few}) < len(few)


def test_a_scale_for_each_token_is_for_inputs_in_fp8_without_groups() -> None:
    found = {form: (Layer(form, "w2", 2).fp8, Layer(form, "w2", 2).groups) for form in layers.FORMATS}
    assert found == {
        "mxfp4-fp8": (True, True), "int4": (False, False), "mxfp4": (False, False), "mxfp4-fp8token": (True, False),
    }  # fmt: skip
    assert set(layers.PEAK_PRODUCTS) == set(layers.SCALE_BITS) == set(kernels.ACTIVATIONS) == set(found)
    for form, (fp8, groups) in found.items():
        asked = kernels.ACTIVATIONS[form]
        assert (asked.get("dtype") == "float8e4m3", "group_size" in asked) == (fp8, groups)
        assert layers.PEAK_PRODUCTS[form] == (1979e12 if fp8 else 989e12)
    assert set(found) - set(layers.USUAL) == {"mxfp4-fp8token"}


@pytest.mark.parametrize("form", layers.FORMATS)
def test_scales_come_late_only_where_they_are_those_of_groups(form: str) -> None:
    """Humming refuses to make a kernel with `wgmma_use_late_as` for other scales."""
    layer = Layer(form, "w13", 2)
    for found in (list(kernels.for_decoding(layer)), list(schedules.proposed_for_prompts(layer.fp8, layer.groups))):
        assert len({schedules.name(one) for one in found}) == len(found)
        assert any(one.get("wgmma_use_late_as") for one in found) == (form == "mxfp4-fp8")


def test_for_a_scale_a_token_decode_steps_load_as_humming_chooses_it_too() -> None:
    own = {"use_warp_spec": True, "use_tma": True, "producer_stage_unroll": 2, "smem_reuse_mode": "none"}
    for form in layers.FORMATS:
        found = list(kernels.for_decoding(Layer(form, "w13", 2)))
        alike = [one for one in found if own.items() <= one.items() and "wgmma_split_issue_wait" not in one]
        assert any(one["warp_shape"] == (8, 32, 128) for one in alike) == (form == "mxfp4-fp8token")
        assert {one["use_warp_spec"] for one in found} == {False, True}


@pytest.mark.parametrize(("fp8", "groups"), INPUTS)
def test_proposals_for_prompts_keep_their_sums_in_registers(fp8: bool, groups: bool) -> None:
    found = list(schedules.proposed_for_prompts(fp8, groups))
    assert len({schedules.name(one) for one in found}) == len(found)
    assert {one["block_shape"][0] for one in found} >= {32, 40, 64, 96, 128, 192}
    for one in found:
        m, n, k = one["block_shape"]
        assert m in schedules.PROMPT_ROWS
        assert (n in {128, 256}, k in {64, 128}) == (True, True)
        assert all(block % warp == 0 for block, warp in zip(one["block_shape"], one["warp_shape"], strict=True))
        multiply = schedules.threads(one) - 128 * one["use_warp_spec"]
        assert schedules.sums(one, groups) + 44 + one["warp_shape"][1] / 2 <= 255
        held = multiply * one["num_ctas_per_sm"] * (schedules.sums(one, groups) + 44)
        assert held + 128 * 40 * one["num_ctas_per_sm"] * one["use_warp_spec"] <= 65536
        assert not one["use_stream_k"]


@pytest.mark.parametrize(("fp8", "groups"), INPUTS)
def test_all_sums_of_a_tile_are_held_by_its_threads(fp8: bool, groups: bool) -> None:
    for one in schedules.proposed_for_prompts(fp8, groups):
        m, n, k = one["block_shape"]
        along_k = k // one["warp_shape"][2]  # each of them has sums of its own
        multiply = schedules.threads(one) - 128 * one["use_warp_spec"]
        assert along_k == 1 or not fp8
        assert schedules.sums(one, groups=False) * multiply == m * n * along_k
        assert schedules.sums(one, groups=True) == 2 * schedules.sums(one, groups=False)


def test_without_sums_of_groups_larger_tiles_have_room() -> None:
    """Of two scales of FP8 inputs, that of a token leaves the registers of a group's sums and scales to the product's."""
    here, there = (
        {schedules.name(one).replace("-late", "") for one in schedules.proposed_for_prompts(True, groups)}
        for groups in (True, False)
    )
    assert here < there
    assert {name for name in there - here if name.startswith("128x256x128/128x32x128")}
    assert not {name for name in here if name.startswith("128x256x128/128x32x128")}


def test_thinning_for_prompts_keeps_at_most_sixty_and_all_numbers_of_rows() -> None:
    for fp8, groups in INPUTS:
        found = list(schedules.proposed_for_prompts(fp8, groups))
        kept = schedules.thinned(schedules.deepest(found), schedules.PROMPT_ROWS, schedules.prompt_rank)
        assert len(kept) <= sum(schedules.PROMPT_ROWS.values()) <= 60
        assert {one["block_shape"][0] for one in kept} == {one["block_shape"][0] for one in found}
        for rows, most in schedules.PROMPT_ROWS.items():
            here = [one for one in kept if one["block_shape"][0] == rows]
            assert len({schedules.family(one) for one in here}) == len(here) <= most
            loaded = [one["use_warp_spec"] for one in found if one["block_shape"][0] == rows]
            if here:
                assert here[0]["use_warp_spec"] == any(loaded)  # Humming's own policies load so


@given(st.integers(1, 40000), st.sampled_from([8, 16, 32, 64, 96, 256]))
def test_rows_near_to_the_mean_of_an_expert(tokens: int, rows: int) -> None:
    mean = tokens * 6 / 256
    assert schedules.near(tile(block_shape=(rows, 256, 128)), mean) == (0.75 * mean <= rows <= mean / 0.75)


@pytest.mark.parametrize("tokens", measure.TOKENS)
def test_schedules_of_the_other_kind_are_measured_only_where_their_rows_are_near(tokens: int) -> None:
    decode = [tile(block_shape=(rows, 256, 128)) for rows in schedules.ROWS]
    read = [tile(block_shape=(rows, 256, 128)) for rows in schedules.PROMPT_ROWS]
    found = measure.tried({False: decode, True: read}, tokens)
    rows = [one["block_shape"][0] for one in found]
    assert len(set(rows)) == len(rows)  # none twice
    own = set(schedules.PROMPT_ROWS if tokens > 384 else schedules.ROWS)
    assert set(rows) == own | ({24} if tokens == 1024 else set())


def test_of_sizes_of_steps_none_is_left_out_and_prompts_follow_the_first_of_decoding() -> None:
    assert sorted(measure.TOKENS) == sorted({*measure.DECODE, *measure.PROMPTS})
    assert all(measure.prompts(tokens) == (tokens in measure.PROMPTS) for tokens in measure.TOKENS)
    assert [measure.prompts(tokens) for tokens in measure.TOKENS[:8]] == [False] * 3 + [True] * 4 + [False]


@given(st.integers(1, 10000), st.sampled_from(HERE))
def test_products_of_a_step_are_shared_by_gpus_and_grow_with_its_tokens(tokens: int, layer: Layer) -> None:
    whole = Layer(layer.format, layer.sublayer, 1)
    assert layer.products(tokens) * layer.ways == whole.products(tokens) == tokens * whole.products(1)
    assert layer.products(1) == 2 * 6 * layer.shape[0] * layer.shape[1]


def elf(sections: dict[str, bytes]) -> bytes:
    """Return a 64-bit ELF file with these sections."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*sections, ".shstrtab"))
    bodies = [b"", *sections.values(), names]
    starts = [64 + sum(map(len, bodies[:place])) for place in range(len(bodies))]
    places = [0, *(names.index(name.encode() + b"\0") for name in (*sections, ".shstrtab"))]
    table = b"".join(
        struct.pack("<IIQQQQIIQQ", place, 1, 0, 0, start, len(body), 0, 0, 0, 0)
        for place, start, body in zip(places, starts, bodies, strict=True)
    )
    head = b"\x7fELF\x02\x01".ljust(40, b"\0") + struct.pack("<Q", starts[-1] + len(names))
    return head.ljust(58, b"\0") + struct.pack("<HHH", 64, len(bodies), len(bodies) - 1) + b"".join(bodies) + table


def test_registers_and_stack_are_read_from_a_kernel(tmp_path: Path) -> None:
    file = tmp_path / "kernel.cubin"
    info = b"".join(
        struct.pack("<BBHII", 4, attribute, 8, 7, value)
        for attribute, value in ((0x2F, 96), (0x2F, 128), (0x2F, 24), (0x11, 40), (0x12, 48))
    )
    info += struct.pack("<BBHIII", 4, 0x2F, 12, 7, 255, 0)  # of another form
    file.write_bytes(elf({".text.humming": b"code", ".nv.info": struct.pack("<BBH", 1, 0x2F, 500) + info}))
    assert cubin.use(file) == cubin.Use(registers=128, stack=40)
    file.write_bytes(elf({".text.humming": b"code"}))
    with pytest.raises(ValueError, match="does not say"):
        cubin.use(file)
    file.write_bytes(b"text")
    with pytest.raises(ValueError, match="ELF"):
        cubin.use(file)


def test_kernels_that_spill_or_take_many_instructions_are_left_out() -> None:
    def use(stack: int, instructions: float | None) -> dict[str, Any]:
        return {"stack": stack, "instructions": instructions}

    uses = {
        "good": use(0, 2.0),
        "fair": use(8, 3.4),
        "slow": use(0, 3.6),
        "spills": use(200, 2.0),
        "unknown": use(0, None),
    }
    assert program.lean(uses) == ["good", "fair", "unknown"]
    assert program.lean({"unknown": use(0, None)}) == ["unknown"]
    assert program.lean(uses, 200) == ["good", "fair", "spills", "unknown"]


@pytest.mark.parametrize("form", layers.FORMATS)
def test_a_kernel_gets_the_scales_of_its_inputs(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Humming hands over scales of groups and of tokens apart; inputs in FP8 it takes as they are."""
    layer = Layer(form, "w2", 2)
    made = {"groups": torch.ones((192, 8)), "token": torch.ones((192, 1))}

    def process(config: object, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        assert inputs.shape == (192, 1024)
        small = inputs.to(torch.float8_e4m3fn)
        return (small, made["groups"], None) if layer.groups else (small, None, made["token"])

    for name, module in (
        ("vllm", types.ModuleType("vllm")),
        ("vllm.utils", types.ModuleType("vllm.utils")),
        ("vllm.utils.humming", types.SimpleNamespace(may_process_input=process)),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    held = object.__new__(bench.Bench)
    held.layer, held.device, held.config = layer, "cpu", None
    step = held.step(32)
    assert step.scales is ({"mxfp4-fp8": made["groups"], "mxfp4-fp8token": made["token"]}.get(form))
    assert step.inputs.dtype == (torch.float8_e4m3fn if layer.fp8 else torch.bfloat16)
    assert step.output.shape == (192, 4096)


class Simulated:
    """A GPU whose schedules take a time by their name; some give wrong results, are refused or end the process."""

    def __init__(
        self, us: dict[str, float], wrong: Sequence[str] = (), refused: Sequence[str] = (), ends: str = ""
    ) -> None:
        self.us, self.wrong, self.refused, self.ends = us, wrong, refused, ends
        self.measured: list[tuple[int, str]] = []
        self.replays: dict[int, int] = {}

    class Step:
        def __init__(self, tokens: int) -> None:
            self.tokens, self.bytes_moved, self.products = tokens, tokens * 1e6, tokens * 1e9

    def step(self, tokens: int) -> Simulated.Step:
        return self.Step(tokens)

    def load(self, schedule: Schedule) -> None:
        if schedules.name(schedule) in self.refused:
            raise AssertionError("refused")

    def result(self, schedule: Schedule, step: Any) -> float:
        if schedules.name(schedule) == self.ends:
            os._exit(77)
        return 2.0 if schedules.name(schedule) in self.wrong else 1.0

    def timed(self, schedule: Schedule, step: Any, replays: int) -> list[float]:
        self.measured.append((step.tokens, schedules.name(schedule)))
        self.replays[step.tokens] = replays
        return [self.us[schedules.name(schedule)] + step.tokens] * replays

    def aligning(self, step: Any, rows: int, replays: int) -> list[float]:
        return [9.0] * replays


OWN, FAST, SLOW, OTHER = (tile(num_ctas_per_sm=blocks) for blocks in (1, 2, 3, 4))
NAMES = [schedules.name(one) for one in (OWN, FAST, SLOW, OTHER)]
US = dict(zip(NAMES, (100.0, 50.0, 900.0, 60.0), strict=True))


def measured(
    bench: Simulated,
    file: Path,
    until: float = math.inf,
    tokens: Sequence[int] = (32, 8, 2, 4),
    prompts: Sequence[Schedule] = (),
) -> list[measure.Row]:
    """Return the rows of a measurement."""
    record = measure.Record(file, "mxfp4,w13,2")
    measure.everything(
        bench, record, {False: [FAST, SLOW, OTHER], True: prompts}, dict.fromkeys(tokens, OWN), replays=5, until=until,
        middle=lambda times: (times[0], 0.01), difference=lambda result, expected: abs(result - expected),
    )  # fmt: skip
    return record.rows()


def test_rows_say_what_each_schedule_took_and_slow_ones_end_early(tmp_path: Path) -> None:
    rows = measured(Simulated(US), tmp_path / "rows.jsonl")
    times = {(row["tokens"], row["name"]): row for row in rows if "us" in row}
    assert {tokens for tokens, name in times if name == NAMES[2]} == {32, 8, 2}  # the last step is without it
    assert {tokens for tokens, name in times if name == NAMES[1]} == {32, 8, 2, 4}
    assert [name for (tokens, name), row in times.items() if row["own"] and tokens == 8] == [NAMES[0]]
    row = times[32, NAMES[1]]
    assert (row["us"], row["rows"], row["bytes"], row["error"]) == (82.0, 192, 32e6, 0.0)
    assert row["gb_s"] == round(32e6 / 82e-6 / 1e9)
    assert row["share"] == pytest.approx(32e6 / 82e-6 / layers.PEAK, abs=1e-3)
    assert row["tflop_s"] == pytest.approx(32e9 / 82e-6 / 1e12, abs=0.1)
    assert row["of_dense"] == pytest.approx(32e9 / 82e-6 / 989e12, abs=1e-3)
    assert [row["again"] for row in rows if "again" in row] == [132.0, 108.0, 102.0, 104.0]


def test_steps_of_prompts_have_schedules_of_their_own_and_fewer_replays(tmp_path: Path) -> None:
    sizes, large = (
        (32, 8, 2, 8192, 1024, 4096, 4),
        [tile(block_shape=(96, 256, 128), num_ctas_per_sm=n) for n in (1, 2)],
    )
    fast, slow = (schedules.name(one) for one in large)
    bench = Simulated(US | {fast: 10.0, slow: 9e5})
    rows = measured(bench, tmp_path / "rows.jsonl", tokens=sizes, prompts=large)
    found = {at: {row["name"] for row in rows if row["tokens"] == at and "us" in row} for at in sizes}
    assert found[8192] == found[1024] == {NAMES[0], fast, slow}
    assert found[4096] == {NAMES[0], fast}  # after two of its kind
    assert found[32] == found[2] == set(NAMES)
    assert found[4] == set(NAMES) - {NAMES[2]}
    assert {at: bench.replays[at] == 5 for at in sizes} == {at: at < 1000 for at in sizes}


def test_a_run_that_was_cut_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    assert measured(Simulated(US), file, until=0.0)[-1]["cut"]
    measured(Simulated(US), file, tokens=(32, 8))
    file.write_text(file.read_text() + '{"layer": "mxfp4,w13,2", "tok')
    file.write_text(file.read_text() + "\n")
    second = Simulated(US)
    rows = measured(second, file)
    assert {tokens for tokens, _ in second.measured if tokens in {32, 8}} == {32, 8}  # Humming's own, once more
    assert Counter((row["tokens"], row["name"]) for row in rows if "us" in row).most_common(1)[0][1] == 1
    assert {row["tokens"] for row in rows if "us" in row} == {32, 8, 2, 4}


def test_wrong_and_refused_schedules_do_not_win(tmp_path: Path) -> None:
    rows = measured(Simulated(US, wrong=[NAMES[1]], refused=[NAMES[3]]), tmp_path / "rows.jsonl")
    assert [row["why"] for row in rows if row.get("lost") == NAMES[3]] == ["AssertionError: refused"]
    found = choose.times(rows, "mxfp4,w13,2")
    assert {one.name for each in found.values() for one in each} == {NAMES[0], NAMES[2]}
    lines = list(measure.summary(rows))
    assert len(lines) == 8
    assert all(NAMES[1] not in line for line in lines)


def test_a_process_that_dies_is_started_again_without_what_killed_it(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    text = (
        "from pathlib import Path; from tests.qualification.gpu.test_expert_kernels import NAMES, Simulated, US, measured;"
        f"measured(Simulated(US, ends=NAMES[1]), Path({str(file)!r}), tokens=(32, 8))"
    )
    record = measure.Record(file, "mxfp4,w13,2")
    root = Path(__file__).parents[3]
    environ = os.environ | {"PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"}
    assert measure.guarded(["-c", text], file, environ, math.inf) == 0
    rows = record.rows()
    assert [(row["lost"], row["why"]) for row in rows if "lost" in row] == [(NAMES[1], "the process ended with 77")]
    assert {row["name"] for row in rows if "us" in row} == set(NAMES) - {NAMES[1]}


def test_a_process_that_never_measures_is_not_started_again(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    assert measure.guarded(["-c", "raise SystemExit(5)"], file, os.environ, 0.0) == 5
    assert [row["lost"] for row in measure.read(file)] == ["start"]


def test_a_kernel_that_never_returns_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "PATIENCE", 0.5)
    file, began = tmp_path / "rows.jsonl", time.monotonic()
    assert measure.guarded(["-c", "import time; time.sleep(60)"], file, os.environ, 0.0) < 0
    assert time.monotonic() - began < 30


def rows_of(sublayer: str, us: dict[tuple[int, int, int], float], own: tuple[int, int]) -> list[measure.Row]:
    """Return rows by (tokens, rows of a tile, blocks of a processor)."""
    made = []
    for (tokens, rows, blocks), time_us in us.items():
        schedule = tile(block_shape=(rows, 256, 128), num_ctas_per_sm=blocks)
        made.append(
            {
                "layer": f"int4,{sublayer},2", "tokens": tokens, "name": schedules.name(schedule), "schedule": schedule,
                "us": time_us, "spread": 0.002, "error": 0.004, "own": (rows, blocks) == own,
            }
        )  # fmt: skip
    return made


def decided(
    up: dict[tuple[int, int, int], float], down: dict[tuple[int, int, int], float], again: float
) -> dict[str, Any]:
    rows = rows_of("w13", up, (16, 1)) + rows_of("w2", down, (16, 1))
    found = {sublayer: choose.times(rows, f"int4,{sublayer},2") for sublayer in layers.SUBLAYERS}
    taken = choose.together(found, dict.fromkeys((2, 4, 32), again))
    return {
        sublayer: {tokens: (one["block_shape"][0], one["num_ctas_per_sm"]) for tokens, one in each.items()}
        for sublayer, each in taken.items()
    }


def test_rows_of_tiles_differ_only_where_that_pays_for_a_second_sort() -> None:
    up = {(32, 16, 1): 100.0, (32, 8, 1): 80.0}
    down = {(32, 16, 1): 50.0, (32, 8, 1): 58.0}
    assert decided(up, down, again=2.0) == {"w13": {32: (8, 1)}, "w2": {32: (16, 1)}}
    assert decided(up, down, again=10.0) == {"w13": {32: (8, 1)}, "w2": {32: (8, 1)}}


def test_a_gain_within_the_noise_leaves_humming_alone() -> None:
    down = {(32, 16, 1): 50.0}
    assert decided({(32, 16, 1): 100.0, (32, 16, 2): 98.0}, down, again=5.0) == {"w13": {}, "w2": {}}
    assert decided({(32, 16, 1): 100.0, (32, 16, 2): 90.0}, down, again=5.0)["w13"] == {32: (16, 2)}


@pytest.mark.parametrize(("spread", "taken"), [(0.001, True), (0.024, True), (0.026, False), (0.06, False)])
@pytest.mark.parametrize("noisy", ["own", "best"])
def test_a_gain_is_more_than_twice_the_noise_of_either(noisy: str, spread: float, taken: bool) -> None:
    def one(us: float, blocks: int) -> choose.Measured:
        own = blocks == 1
        return choose.Measured(tile(num_ctas_per_sm=blocks), us, spread if own == (noisy == "own") else 0.0, own)

    found = {"w13": {8: [one(60.0, 1), one(55.0, 2)]}, "w2": {8: [choose.Measured(tile(), 40.0, 0.0, own=True)]}}
    assert bool(choose.together(found, {})["w13"]) == taken


def test_of_equally_fast_schedules_the_one_that_serves_more_steps_is_taken() -> None:
    up = {(2, 16, 1): 90.0, (2, 16, 2): 50.0, (4, 16, 1): 90.0, (4, 16, 2): 50.3, (4, 16, 3): 50.0}
    down = {(2, 16, 1): 1.0, (4, 16, 1): 1.0}
    assert decided(up, down, again=5.0)["w13"] == {2: (16, 2), 4: (16, 2)}


@given(st.lists(st.integers(1, 400), unique=True, min_size=1, max_size=8).map(sorted), st.data())
def test_ranges_are_those_of_the_nearest_steps_and_end_at_the_last(tokens: list[int], data: st.DataObject) -> None:
    taken = {at: tile(num_ctas_per_sm=data.draw(st.integers(1, 2))) for at in tokens if data.draw(st.booleans())}
    found = choose.ranges(tokens, taken)
    assert all(low < high for low, high, _ in found)
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(found))
    for at in tokens:
        here = [one for low, high, one in found if low < at * 6 <= high]
        assert here == ([taken[at]] if at in taken else [])
    assert all(high <= tokens[-1] * 6 for _, high, _ in found)
    for low, high, one in found:
        assert not any(two == (high, three, one) for two in found for three in [two[1]]), (low, high)


def test_the_border_between_two_steps_is_their_geometric_mean() -> None:
    low, high = tile(num_ctas_per_sm=1), tile(num_ctas_per_sm=2)
    assert choose.ranges([8, 32], {8: low, 32: high}) == [(0, 16 * 6, low), (16 * 6, 32 * 6, high)]


@given(st.sets(st.sampled_from(measure.TOKENS), min_size=1), st.data())
def test_ranges_of_prompts_begin_above_those_of_decoding(sizes: set[int], data: st.DataObject) -> None:
    taken = {at: tile(num_ctas_per_sm=data.draw(st.integers(1, 2))) for at in sizes if data.draw(st.booleans())}
    found = choose.both_ranges(sorted(sizes), taken)
    for at in sizes:
        assert [one for low, high, one in found if low < at * 6 <= high] == ([taken[at]] if at in taken else [])
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(found))
    assert not any(low < rows <= high for low, high, _ in found for rows in (385 * 6, 700 * 6, 8193 * 6))
    decode = [at for at in sizes if at <= 384]
    assert [one for one in found if one[1] <= 384 * 6] == (choose.ranges(decode, taken) if decode else [])


def test_where_ranges_of_prompts_lie() -> None:
    both = {384: tile(), 1024: tile(), 2048: tile(num_ctas_per_sm=1), 8192: tile()}
    found = [(low / 6, high / 6) for low, high, _ in choose.both_ranges(list(both), both)]
    assert found == [(0, 384), (724, 1448), (1448, 4096), (4096, 8192)]


def test_sorting_rows_costs_what_it_took_at_that_size() -> None:
    rows = [{"tokens": at, "align_us": us} for at, us in ((32, 9.0), (32, 3.0), (32, 4.0), (8192, 70.0))]
    assert choose.sorting([*rows, {"tokens": 4, "us": 1.0}]) == {32: 4.0, 8192: 70.0}
    up = [choose.Measured(tile(block_shape=(8, 256, 128)), 80.0, 0.0, own=False)]
    up += [
        choose.Measured(tile(), 100.0, 0.0, own=True),
        choose.Measured(tile(block_shape=(16, 256, 128)), 97.0, 0.0, own=False),
    ]
    down = [choose.Measured(tile(block_shape=(16, 256, 128)), 50.0, 0.0, own=True)]
    found = {"w13": {32: up, 8192: up}, "w2": {32: down, 8192: down}}
    taken = choose.together(found, {32: 4.0, 8192: 70.0})["w13"]
    assert [one["block_shape"][0] for one in taken.values()] == [8, 16]


def test_choose_writes_a_table_for_each_sublayer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, tables = tmp_path / "rows.jsonl", tmp_path / "tables"
    head = {"device": "NVIDIA H200", "humming": "0.1.17"}
    described = {"num_experts": 256, "shape_n": 2048, "shape_k": 4096, "a_dtype": "bfloat16", "b_dtype": "uint4"}
    made = [
        {"layer": f"int4,{sublayer},2", "layer_config": described | {"shape_n": n}, **head}
        for sublayer, n in (("w13", 2048), ("w2", 4096))
    ]
    measured_rows = rows_of("w13", {(8, 16, 1): 100.0, (8, 8, 1): 50.0}, (16, 1)) + rows_of(
        "w2", {(8, 16, 1): 50.0, (8, 8, 1): 30.0}, (16, 1)
    )
    made += [{**one, "gb_s": 1, "share": 0.1} for one in measured_rows]
    rows.write_text("".join(json.dumps(one) + "\n" for one in made))
    monkeypatch.setattr(sys, "argv", ["expert_kernels", "choose", str(rows), "--tables", str(tables)])
    assert program.main() == 0
    assert "heuristic" in capsys.readouterr().out
    files = sorted(tables.iterdir())
    assert len(files) == 2
    for file in files:
        table = json.loads(file.read_text())
        assert file.name == choose.file_name(table["layer_config"], table["device_name"])
        assert table["humming_version"] == "0.1.17"
        (found,) = table["tuning_config"]
        assert found[:2] == [0, 48]
        assert found[2]["block_shape"] == [8, 256, 128]
    rows.write_text("")
    assert program.main() == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"No table: {rows} has no layer")


def test_a_line_that_was_cut_within_a_letter_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"layer": "one"}\n{"layer": "\xc2')
    assert measure.read(file) == [{"layer": "one"}]


@pytest.mark.parametrize("step", ["choose", "keep"])
def test_a_file_of_rows_that_is_not_there_is_named(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = tmp_path / "tables"
    kept = ["--out", str(tmp_path / "kept"), "--driver", "580", "--vllm", "0.32.0", "--date", "2026-11-30"]
    more = {"choose": ["--tables", str(tables)], "keep": kept}
    monkeypatch.setattr(sys, "argv", ["expert_kernels", step, str(tmp_path / "rows.jsonl"), *more[step]])
    with pytest.raises(SystemExit, match="2"):
        program.main()
    assert f"there is no file {tmp_path / 'rows.jsonl'}; name the one" in capsys.readouterr().err
    assert not tables.exists()


def test_tables_of_a_scale_a_token_do_not_replace_those_of_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have the same name, by which vLLM finds them: it tells them apart by what is in them."""
    rows, tables = tmp_path / "rows.jsonl", tmp_path / "tables"
    made = []
    for form, mode in (("mxfp4-fp8token", "dynamic_token"), ("mxfp4-fp8", "dynamic_group")):
        for sublayer, n in (("w13", 2048), ("w2", 4096)):
            described = {
                "num_experts": 256, "shape_n": n, "shape_k": 4096, "a_dtype": "float8e4m3", "b_dtype": "float4e2m1",
                "input_quant_mode": mode,
            }  # fmt: skip
            layer = f"{form},{sublayer},2"
            made.append({"layer": layer, "layer_config": described, "device": "NVIDIA H200", "humming": "0.1.17"})
            found = rows_of(sublayer, {(8, 16, 1): 100.0, (8, 8, 1): 50.0}, (16, 1))
            made += [{**one, "layer": layer, "gb_s": 1, "share": 0.1} for one in found]
    rows.write_text("".join(json.dumps(one) + "\n" for one in made))
    monkeypatch.setattr(sys, "argv", ["expert_kernels", "choose", str(rows), "--tables", str(tables)])
    assert program.main() == 0
    files = {file: json.loads(file.read_text())["layer_config"]["input_quant_mode"] for file in tables.rglob("*.json")}
    assert {file.parent for file, mode in files.items() if mode == "dynamic_token"} == {tables / "mxfp4-fp8token"}
    assert {file.parent for file, mode in files.items() if mode == "dynamic_group"} == {tables}
    assert [len(files), len({file.name for file in files})] == [4, 2]


@pytest.mark.skipif(importlib.util.find_spec("humming") is not None, reason="Humming is installed here")
def test_without_humming_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["expert_kernels", "compile", "--kernels", str(tmp_path)])
    with pytest.raises(SystemExit, match="Humming is not installed in this Python"):
        program.main()
