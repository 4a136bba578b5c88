"""Folders of full size are recognized, sized and found complete; one lost tensor of 35,000 is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsv4_serve.entrypoint.checkpoint import read
from dsv4_serve.entrypoint.doctor.checkpoint_requirements import checkpoint_requirements
from dsv4_serve.entrypoint.doctor.checks.checkpoint import examine
from tests.support import full_size
from tests.support.plans import request, resolved, selected

PATCHES = frozenset(
    {
        "build-bf16-draft-heads",
        "load-mxfp4-draft-experts",
        "load-fp8-compressors-as-bf16",
        "match-published-expert-targets",
    }
)
GIB = 1 << 30


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    ("layout", "answer", "tensors", "sizes"),
    [
        ("flash-0731", "flash-0731 dspark", 72_316, (155.4, 10.1)),
        ("flash-base", "flash-base mtp", 69_187, (272.5, 6.2)),
        ("w4a16-undrafted", "w4a16 none", 100_631, (142.0, 0.0)),
    ],
)
def test_a_folder_of_full_size_is_its_model_and_complete(
    tmp_path: Path, layout: str, answer: str, tensors: int, sizes: tuple[float, float]
) -> None:
    folder = full_size.folder(tmp_path, layout)
    requested = request(hardware="b300", model=str(folder), profile="64k")
    chosen, plan = selected(requested), resolved(requested)
    assert chosen.identity
    assert (f"{chosen.model.name} {chosen.drafter.kind}", chosen.identity.missing) == (answer, ())
    assert (chosen.weights_gib, chosen.identity.drafter.bytes / GIB) == pytest.approx(sizes, abs=0.1)
    checkpoint = read.read(folder)
    required = checkpoint_requirements(plan, chosen.model, PATCHES)
    assert dict(examine(checkpoint, required)) == {}
    assert len(checkpoint.tensors) == tensors
    lost = "layers.42.attn.compressor.wgate.weight"
    del checkpoint.tensors[lost]  # type: ignore[attr-defined]
    (found,) = dict(examine(checkpoint, required, {"index-matches-headers", "tensors-once"})).items()
    assert found[0] == "target-model-complete"
    assert lost in found[1].seen
