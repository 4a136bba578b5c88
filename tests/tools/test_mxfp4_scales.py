"""How the scales of MXFP4 experts are counted that FP8 activations would round."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dsv4_serve.demo.deepseek_v4 import Dims, write
from tools import mxfp4_scales


def checkpoint(folder: Path, tensors: dict[str, list[int]], dtype: str = "F8_E8M0") -> None:
    header, data = {}, b""
    for name, values in tensors.items():
        header[name] = {"dtype": dtype, "shape": [1, len(values)], "data_offsets": [len(data), len(data) + len(values)]}
        data += bytes(values)
    start = json.dumps(header).encode()
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(len(start).to_bytes(8, "little") + start + data)


def test_scales_of_gate_and_up_count_together_and_eleven_powers_of_two_are_exact(tmp_path: Path) -> None:
    gate, up, down = (f"layers.0.ffn.experts.3.w{n}.scale" for n in (1, 3, 2))
    checkpoint(tmp_path, {gate: [120, 109], up: [121, 121], down: [50, 39, 38], "layers.0.attn.wo_a.scale": [1, 200]})
    found = dict(mxfp4_scales.scales(tmp_path))
    assert {name: sorted(values.tolist()) for name, values in found.items()} == {
        "layers.0.ffn.experts.3.w13": [109, 120, 121, 121],
        "layers.0.ffn.experts.3.w2": [38, 39, 50],
    }
    assert {name[-3:]: mxfp4_scales.below(values) for name, values in found.items()} == {"w13": (12, 1), ".w2": (12, 1)}
    assert mxfp4_scales.below(np.array([20, 9], np.uint8)) == (11, 0)


@pytest.mark.parametrize(("layout", "status"), [("native", 0), ("w4a16", 1)])
def test_a_checkpoint_is_read_by_its_own_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], layout: str, status: int
) -> None:
    write(tmp_path, layout, Dims(experts=8, vocab=64, ratios=(0, 4, 128), max_positions=4096))
    monkeypatch.setattr("sys.argv", ["mxfp4_scales", str(tmp_path)])
    assert mxfp4_scales.main() == status
    printed = capsys.readouterr()
    matrices = 8 * 2 * 4  # experts, w13 and w2, three layers and the draft head
    assert (f"| all {matrices} |" in printed.out) == (layout == "native")
    assert ("no MXFP4 experts" in printed.err) == (layout == "w4a16")
