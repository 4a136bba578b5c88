# pyright: reportAttributeAccessIssue=false, reportMissingImports=false
# vLLM has these names when the series is applied.
import json
import shutil
from pathlib import Path


def names(model, **options):
    from vllm.models.deepseek_v4.common import draft_checkpoint

    from tests.support import cuda_model

    draft_checkpoint._tensor_names.cache_clear()
    return draft_checkpoint.draft_tensors(cuda_model.engine_config(model, **options))


def check_names_come_from_the_index():
    from tests.support import cuda_model

    layers = names(cuda_model.checkpoint("acti"))
    assert set(layers) == {cuda_model.DRAFT}
    assert {"ffn.experts.0.w1.weight_packed", "attn.wo_b.weight_scale", "e_proj.weight"} <= layers[cuda_model.DRAFT]
    assert not any("mtp" in name or name.startswith("layers") for name in layers[cuda_model.DRAFT])


def check_names_come_from_single_files_without_an_index():
    import tempfile

    from tests.support import cuda_model

    copy = Path(tempfile.mkdtemp()) / "single"
    shutil.copytree(cuda_model.checkpoint("pro"), copy)
    (copy / "model.safetensors.index.json").unlink()
    assert names(copy) == names(cuda_model.checkpoint("pro"))


def check_a_cached_hub_id_gives_the_names_of_its_directory():
    """The layout of the HF cache: refs/main names a snapshot, which holds the files."""
    import tempfile

    from tests.support import cuda_model

    cache = Path(tempfile.mkdtemp())
    commit = "0" * 40
    repository = cache / "models--someone--some-checkpoint"
    shutil.copytree(cuda_model.checkpoint("w4a16"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    from vllm.models.deepseek_v4.common.draft_checkpoint import _tensor_names

    index = json.loads((cuda_model.checkpoint("w4a16") / "model.safetensors.index.json").read_text())
    assert _tensor_names("someone/some-checkpoint", None, str(cache)) == set(index["weight_map"])


def check_every_draft_layer_is_listed_under_its_own_index():
    from vllm.models.deepseek_v4.common import draft_checkpoint

    from tests.support import cuda_model

    config = cuda_model.engine_config(cuda_model.checkpoint("bf16"))
    original = draft_checkpoint._tensor_names
    draft_checkpoint._tensor_names = lambda *_: frozenset({"mtp.0.a.weight", "mtp.1.b.scale", "layers.0.c.weight"})
    try:
        layers = draft_checkpoint.draft_tensors(config)
    finally:
        draft_checkpoint._tensor_names = original
    assert layers == {cuda_model.DRAFT: {"a.weight"}, cuda_model.DRAFT + 1: {"b.scale"}}


def check_a_checkpoint_without_a_draft_head_is_refused_by_name():
    from tests.support import cuda_model

    for layout in ("nvfp4", "w4a16", "native"):
        try:
            names(cuda_model.checkpoint(layout, "removed"))
        except ValueError as error:
            assert "has no draft head" in str(error)
        else:
            raise AssertionError(layout)


def test_a_checkpoint_without_a_draft_head_is_refused_by_name(needs_patch):
    needs_patch("check_a_checkpoint_without_a_draft_head_is_refused_by_name", "cannot import name 'draft_checkpoint'")


def test_names_come_from_the_index_of_a_directory(needs_patch):
    needs_patch("check_names_come_from_the_index", "cannot import name 'draft_checkpoint'")


def test_names_come_from_single_files_without_an_index(needs_patch):
    needs_patch("check_names_come_from_single_files_without_an_index", "cannot import name 'draft_checkpoint'")


def test_a_cached_hub_id_gives_the_names_of_its_directory(needs_patch):
    needs_patch("check_a_cached_hub_id_gives_the_names_of_its_directory", "draft_checkpoint")


def test_every_draft_layer_is_listed_under_its_own_index(needs_patch):
    needs_patch("check_every_draft_layer_is_listed_under_its_own_index", "cannot import name 'draft_checkpoint'")
