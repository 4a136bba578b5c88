"""Good checkpoints of every published layout pass; each fault, made for real in the files, is named."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsv4_serve.demo.deepseek_v4 import Dims, write
from dsv4_serve.demo.v4_tensors import WIDTH, Tensor, bf16, f32, save
from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.checkpoint import read as checkpoint
from dsv4_serve.entrypoint.checkpoint.read import INDEX
from dsv4_serve.entrypoint.doctor.checkpoint_requirements import CheckpointRequirements, checkpoint_requirements
from dsv4_serve.entrypoint.doctor.checks import config as config_checks
from dsv4_serve.entrypoint.doctor.checks.checkpoint import CHECKS, examine
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.plan import Setting
from dsv4_serve.entrypoint.problem import Problem
from dsv4_serve.entrypoint.request import Request
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import select
from tests.support.checks import problems

DIMS = Dims(experts=8)
TARGET, DRAFT = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
PATCHES = frozenset(
    {
        "build-bf16-draft-heads",
        "load-mxfp4-draft-experts",
        "load-fp8-compressors-as-bf16",
        "match-published-expert-targets",
    }
)
LAYOUTS = {
    "bf16": ("unquantized", "unquantized"),
    "native": ("fp8-mxfp4", "fp8-mxfp4"),
    "w4a16": ("w4a16", "unquantized"),
    "nvfp4": ("nvfp4", "unquantized"),
    "acti": ("w4a16", "w4a16"),
    "pro": ("modelopt-nvfp4", "fp8-mxfp4"),
    "flash-nvfp4": ("modelopt-nvfp4", "fp8-mxfp4"),
    "flash-0731": ("fp8-mxfp4", "fp8-mxfp4"),
    "flash-0731-nvfp4": ("modelopt-nvfp4", "fp8-mxfp4"),
}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
Break = Callable[[Path], None]


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Each layout, written once."""
    folder = tmp_path_factory.mktemp("layouts")

    def original(layout: str) -> Path:
        if not (folder / layout).exists():
            write(folder / layout, layout, DIMS)
        return folder / layout

    return original


@pytest.fixture
def copy(originals: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A checkpoint of a layout, to break: its files are links, and `edit` and the like replace them."""

    def linked(layout: str) -> Path:
        shutil.copytree(originals(layout), tmp_path / layout, copy_function=os.link)
        return tmp_path / layout

    return linked


def asks(layout: str, **changes: Any) -> CheckpointRequirements:
    scheme, draft = LAYOUTS[layout]
    method = "dspark" if "0731" in layout else "mtp"
    served = CheckpointRequirements(
        layout, "deepseek-v4-tiny", scheme, draft, "h200", method=method, draft_tokens=1, patches=PATCHES
    )
    return replace(served, **changes)


def found(folder: Path, served: CheckpointRequirements) -> dict[str, Problem]:
    found = dict(examine(checkpoint.read(folder), served))
    assert found.keys() <= problems(CHECKS, checkpoint.read(folder), served).keys()
    return found


def edit(**changes: Any) -> Break:
    """Change config.json; None deletes a field."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | changes
        put(folder / "config.json", json.dumps({k: v for k, v in config.items() if v is not None}).encode())

    return change


def quantization(**changes: Any) -> Break:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())["quantization_config"]
        edit(quantization_config=config | changes)(folder)

    return change


def put(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def resize(file: str, change: int) -> Break:
    def cut(folder: Path) -> None:
        data = (folder / file).read_bytes()
        put(folder / file, data[:change] if change < 0 else data + bytes(change))

    return cut


def rewrite(file: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Break:
    """Write a shard and the index anew, with other tensors; their data is zeros."""

    def again(folder: Path) -> None:
        seen = checkpoint.read(folder)
        old = {name: blank(t["dtype"], t["shape"]) for name, t in seen.shards[file].tensors.items()}
        tensors = change(old)
        (folder / file).unlink()
        save(folder / file, tensors)
        kept = {name: where for name, where in seen.weight_map.items() if where != file}
        put(folder / INDEX, json.dumps({"weight_map": kept | dict.fromkeys(tensors, file)}).encode())

    return again


def blank(dtype: str, shape: list[int]) -> Tensor:
    return Tensor(dtype, tuple(shape), np.zeros(int(np.prod(shape)) * WIDTH[dtype], np.uint8))


def without(*patterns: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {n: t for n, t in tensors.items() if not any(re.fullmatch(p, n) for p in patterns)}


def index(change: Callable[[dict[str, str]], dict[str, str]]) -> Break:
    def again(folder: Path) -> None:
        weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
        put(folder / INDEX, json.dumps({"weight_map": change(weight_map)}).encode())

    return again


def remove(*files: str) -> Break:
    def change(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()

    return change


def pointers(folder: Path) -> None:
    for file in (TARGET, DRAFT):
        put(folder / file, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 143000000000\n")


def both(*breaks: Break) -> Break:
    def change(folder: Path) -> None:
        for each in breaks:
            each(folder)

    return change


SEEN = {
    "weights-present": ("bf16", both(remove(TARGET, DRAFT), lambda f: put(f / "pytorch_model.bin", b"")), {}, "but pytorch_model.bin"),
    "weights-are-not-pointers": ("native", pointers, {}, f"in place of {TARGET}, {DRAFT}"),
    "shards-present": ("native", remove(DRAFT), {}, f"{DRAFT} not in"),
    "headers-readable": ("native", lambda f: put(f / DRAFT, os.urandom(999)), {}, f"{DRAFT}: does not begin"),
    "shards-whole": ("acti", resize(DRAFT, -12_345), {}, f"{DRAFT} lacks its last 12,345 bytes"),
    "shards-without-a-tail": ("acti", resize(TARGET, 1), {}, "has 1 bytes after its last tensor"),
    "index-readable": ("acti", lambda f: put(f / INDEX, b'{"weight_map":'), {}, "is not valid JSON"),
    "index-matches-headers": ("acti", index(lambda m: m | {"mtp.0.norm.weight": TARGET}), {}, "mtp.0.norm.weight not in the shard"),
    "tensors-once": (
        "nvfp4", rewrite(DRAFT, lambda t: t | {"norm.weight": bf16(np.zeros(512))}), {}, "norm.weight in two shards",
    ),
    "shards-listed": ("acti", index(lambda m: {n: f for n, f in m.items() if f == TARGET}), {}, f"does not name {DRAFT}, with tensors"),
    "folder-readable": ("native", lambda f: [path.unlink() for path in f.iterdir()], {}, "native is empty"),
    "config-readable": ("native", lambda f: put(f / "config.json", b"{"), {}, "is not valid JSON"),
    "tokenizer-present": ("native", remove("tokenizer.json"), {}, "no tokenizer.json in"),
    "config-fields": ("w4a16", edit(compress_ratios=None, num_hash_layers=None), {}, "lacks compress_ratios, num_hash_layers"),
    "config-types": ("w4a16", edit(num_hidden_layers="4", quantization_config=[1]), {}, 'num_hidden_layers = "4"'),
    "compress-ratios": ("w4a16", edit(compress_ratios=[0, 4, 128]), {}, "3 entries, 0, 4, 128"),
    "layer-types": ("w4a16", edit(layer_types=["sliding_attention"] * 5), {}, "5 layer_types in config.json for 4 layers"),
    "long-context-rope": ("w4a16", edit(rope_scaling=None), {}, "no rope_scaling"),
    "router-bias": ("w4a16", edit(topk_method=None), {}, "the routers have a bias, but"),
    "expert-count": ("w4a16", edit(n_routed_experts=144), {}, "144 routed experts"),
    "head-sizes": ("w4a16", edit(head_dim=256), {}, "head_dim 256"),
    "config-describes-weights": ("w4a16", edit(vocab_size=129280), {}, "embed.weight is [128, 512], but config.json declares [129280, 512]"),
    "architecture-matches": ("native", lambda _: None, {"architecture": "deepseek-v4-flash"}, "holds deepseek-v4-tiny"),
    "target-model-complete": ("nvfp4", rewrite(TARGET, without(r"layers\.3\.ffn\.experts\.7\.w2\.weight_scale")), {}, "no layers.3.ffn.experts.7.w2.weight_scale among"),
    "quantization-config-matches": ("w4a16", edit(quantization_config=FP8), {}, "stored as w4a16, but quantization_config in config.json declares fp8-mxfp4"),
    "scheme-matches-model": ("acti", lambda _: None, {"drafter_scheme": "unquantized"}, "holds a drafter in w4a16"),
    "experts-targeted": ("w4a16", quantization(config_groups={"g": {"targets": [r"re:.*mlp\.experts.*"], "weights": {"num_bits": 4, "type": "int"}}}), {}, r"re:.*mlp\.experts.*"),
    "expert-scales-equal": (
        "pro", rewrite(TARGET, lambda t: t | {"layers.3.ffn.experts.7.w3.weight_scale_2": f32(np.array([3.0]))}), {},
        "different weight_scale_2 in layers.3.ffn.experts.7",
    ),
    "expert-targets-need-a-patch": ("nvfp4", lambda _: None, {"patches": frozenset(), "method": ""}, "named gate_proj"),
    "fp8-compressors-need-a-patch": ("acti", lambda _: None, {"patches": frozenset()}, "compressors stored in FP8"),
    "heads-split": ("native", lambda _: None, {"tensor_parallel_size": 4, "expert_parallel": True}, "4 GPUs cannot share 2 o_groups evenly"),
    "experts-split": ("w4a16", edit(o_groups=4), {"tensor_parallel_size": 4}, "4 GPUs cannot share experts with 256 inputs in groups of 128"),
    "draft-layers-declared": ("bf16", edit(num_nextn_predict_layers=None), {}, "absent from config.json"),
    "draft-head-present": ("w4a16", both(remove(DRAFT), index(lambda m: {n: f for n, f in m.items() if f == TARGET})), {}, "tensors is named mtp.0.*"),
    "draft-head-complete": ("w4a16", rewrite(DRAFT, without(r"mtp\.0\.attn\.wo_b\..*", r"mtp\.0\.ffn\.experts\.5\..*")), {}, "mtp.0.attn.wo_b.weight, mtp.0.ffn.experts.5.w1.weight, mtp.0.ffn.experts.5.w2.weight and 1 more"),
    "draft-dspark-complete": ("flash-0731", rewrite(DRAFT, without(r"mtp\.1\.attn\.wo_b\.scale", r"mtp\.2\.markov_head\.markov_w1\..*", r"mtp\.0\.main_norm\..*")), {}, "mtp.1.attn.wo_b.weight_scale, mtp.0.main_norm.weight, mtp.2.markov_head.markov_w1.weight"),
    "draft-is-mtp": ("flash-0731", lambda _: None, {"method": "mtp"}, "tensors under mtp.* are a DSpark drafter"),
    "draft-is-dspark": ("native", lambda _: None, {"method": "dspark", "draft_tokens": 5}, "no DSpark drafter"),
    "draft-dspark-fields": ("flash-0731", edit(dspark_block_size=10**30, dspark_target_layer_ids=[], dspark_markov_rank=None), {}, "dspark_block_size = 1000"),
    "draft-tokens-divide": ("native", edit(num_nextn_predict_layers=5), {"draft_tokens": 7}, "7 draft tokens for 5 MTP layers"),
    "bf16-draft-needs-a-patch": ("w4a16", lambda _: None, {"patches": frozenset()}, "a BF16 draft head"),
    "mxfp4-draft-needs-a-patch": ("pro", lambda _: None, {"patches": frozenset()}, "MXFP4 draft experts"),
}  # fmt: skip
ALSO = {
    "tensors-once": {"index-matches-headers"},
    "shards-listed": {"draft-head-present"},
    "expert-count": {"config-describes-weights", "target-model-complete", "draft-head-complete"},
    "compress-ratios": {"target-model-complete"},
    "draft-tokens-divide": {"draft-head-present"},
}
"""What the same fault rightly means to other checks."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_good_checkpoint_of_every_layout_passes_on_a_patched_vllm(
    originals: Callable[[str], Path], layout: str
) -> None:
    assert found(originals(layout), asks(layout)) == {}


@pytest.mark.parametrize("name", SEEN)
def test_a_fault_in_the_files_is_named(copy: Callable[[str], Path], name: str) -> None:
    layout, fault, changes, message = SEEN[name]
    folder = copy(layout)
    fault(folder)
    problems = found(folder, asks(layout, **changes))
    assert message in problems[name].seen
    assert set(problems) - ALSO.get(name, set()) == {name}


def test_every_check_has_a_fault_that_was_made() -> None:
    assert set(SEEN) == {check.name for check in CHECKS}


def test_every_check_says_how_it_is_met_and_where() -> None:
    for check in CHECKS:
        assert check.symptom
        assert check.link.startswith("https://")
        assert check.tried == "for real"


def test_problems_are_clauses(copy: Callable[[str], Path]) -> None:
    folder = copy("w4a16")
    both(edit(compress_ratios=None), resize(DRAFT, -5), remove("tokenizer.json"))(folder)
    for problem in found(folder, asks("w4a16")).values():
        for clause in (problem.seen, problem.needed, problem.fix):
            assert clause
            assert not clause.endswith(".")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_hidden_layers": "43"}, 'num_hidden_layers = "43"'),
        ({"hidden_size": -4096}, "hidden_size = -4096"),
        ({"moe_intermediate_size": 20.5}, "moe_intermediate_size = 20.5"),
        ({"num_nextn_predict_layers": "1"}, 'num_nextn_predict_layers = "1"'),
        ({"rms_norm_eps": "1e-6"}, 'rms_norm_eps = "1e-6"'),
        ({"quantization_config": "fp8"}, 'quantization_config = "fp8"'),
        ({"quantization_config": {}}, "no quant_method in quantization_config"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "config_groups = null"),
        ({"expert_dtype": "int4", "quantization_config": FP8}, 'expert_dtype = "int4"'),
    ],
)
def test_a_field_that_vllm_cannot_use_is_one_problem(
    copy: Callable[[str], Path], changes: dict[str, Any], says: str
) -> None:
    folder = copy("w4a16")
    edit(**changes)(folder)
    problems = found(folder, asks("w4a16"))
    assert set(problems) == {"config-types"}
    assert problems["config-types"].seen == f"config.json: {says}"


def test_a_folder_that_is_not_there_is_one_problem(tmp_path: Path) -> None:
    nothing = checkpoint.Document({}, absent=True)
    gone = checkpoint.Checkpoint(
        tmp_path / "x", frozenset(), nothing, nothing, {}, unreadable="No such file or directory"
    )
    problems = dict(examine(gone, asks("w4a16")))
    assert set(problems) == {"folder-readable"}
    assert "x cannot be listed (No such file or directory)" in problems["folder-readable"].seen


def test_a_check_that_is_skipped_does_not_run(copy: Callable[[str], Path]) -> None:
    folder = copy("native")
    remove(DRAFT)(folder)
    assert dict(examine(checkpoint.read(folder), asks("native"), {"shards-present"})) == {}


def test_without_speculation_the_draft_head_may_be_missing(copy: Callable[[str], Path]) -> None:
    folder = copy("w4a16")
    SEEN["draft-head-present"][1](folder)
    assert found(folder, asks("w4a16", method="", draft_tokens=0)) == {}


def test_a_missing_shard_is_reported_without_an_index_too(copy: Callable[[str], Path]) -> None:
    folder = copy("native")
    remove(INDEX, DRAFT)(folder)
    assert f"{DRAFT} not in" in found(folder, asks("native"))["shards-present"].seen


def test_a_missing_shard_is_not_reported_as_a_thousand_missing_tensors(copy: Callable[[str], Path]) -> None:
    folder = copy("native")
    remove(DRAFT)(folder)
    assert set(found(folder, asks("native"))) == {"shards-present"}


def test_an_expert_count_is_of_the_gpu_kernel_only(copy: Callable[[str], Path]) -> None:
    folder = copy("native")
    edit(n_routed_experts=144)(folder)
    assert "expert-count" not in found(folder, asks("native", hardware="cpu"))


def test_a_dspark_drafter_may_lack_its_confidence_head(copy: Callable[[str], Path]) -> None:
    folder = copy("flash-0731")
    rewrite(DRAFT, without(r"mtp\.2\.confidence_head\..*"))(folder)
    assert found(folder, asks("flash-0731", draft_tokens=5)) == {}


def test_expert_parallelism_splits_no_expert(copy: Callable[[str], Path]) -> None:
    folder = copy("w4a16")
    edit(o_groups=4)(folder)
    assert found(folder, asks("w4a16", tensor_parallel_size=4, expert_parallel=True)) == {}


def test_fields_that_vllm_does_without_are_not_required(copy: Callable[[str], Path]) -> None:
    """scale_fmt, torch_dtype and mlp_layer_types stopped starts of older releases; 0.32.0 takes all of them."""
    folder = copy("w4a16")
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    del config["scale_fmt"]
    edit(quantization_config=config, torch_dtype=None, mlp_layer_types=["hash_moe", "moe", "moe", "moe"])(folder)
    assert found(folder, asks("w4a16")) == {}


def test_what_is_not_deepseek_v4_is_looked_at_as_files_only(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", {"x": bf16(np.zeros(4))})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    assert found(tmp_path, CheckpointRequirements("demo", "LlamaForCausalLM", "unquantized")) == {}


def test_the_requirements_come_from_the_plan() -> None:
    catalog = Catalog([])
    named = {"profile": "524k", "model": "w4a16", "hardware": "rtx-pro-6000"}
    request = Request({kind: Setting(name, "test") for kind, name in named.items()})
    plan = resolve(select(catalog, request, lambda: HostGpus("rtx-pro-6000", "test")), request)
    seen = checkpoint_requirements(plan, catalog.model("w4a16", ""), PATCHES)
    assert seen == CheckpointRequirements(
        "w4a16", "deepseek-v4-flash", "w4a16", "unquantized", "rtx-pro-6000", 2, False, "mtp", 1, PATCHES
    )


def test_the_fields_are_those_that_the_pinned_vllm_reads_without_a_default() -> None:
    spec = find_spec("vllm")
    assert spec
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "models/deepseek_v4"
    files = ("nvidia/model.py", "attention.py", "compressor.py", "common/rope.py")
    text = "\n".join((folder / file).read_text() for file in files)
    read = set(re.findall(r"\bconfig\.(\w+)", text))
    assert set(config_checks.FIELDS) <= read
