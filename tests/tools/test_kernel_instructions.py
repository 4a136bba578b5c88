"""The main loop of a kernel, found in what nvdisasm prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import kernel_instructions


def lines(*instructions: str) -> str:
    return "\n".join(
        f"        /*{16 * n:04x}*/                   {text} ;" if not text.endswith(":") else text
        for n, text in enumerate(instructions)
    )


LOOP = (
    "S2R R0, SR_TID.X", ".L_x_1:", "LDS R2, [R1]", ".L_x_2:", "@!P0 LOP3.LUT R3, R2, 0xf, RZ, 0xc0, !PT",
    "HMUL2.BF16_V2 R4, R3, R5", "HGMMA.64x8x16.F32.BF16 R24, R4, gdesc[UR4], R24", "@P1 BRA.U.ANY `(.L_x_2)",
    "IADD3 R1, R1, 0x1, RZ", "@P2 BRA `(.L_x_1)", "BRA `(.L_x_9)", ".L_x_9:", "EXIT",
)  # fmt: skip


def test_the_inner_loop_is_taken_and_its_branch_counted() -> None:
    loop = kernel_instructions.main_loop(lines(*LOOP))
    assert loop.instructions == {"LOP3": 1, "HMUL2": 1, "HGMMA": 1, "BRA": 1}
    assert (loop.weights, loop.each) == (8, 0.5)


def test_an_instruction_in_fp8_takes_twice_the_weights(tmp_path: Path) -> None:
    file = tmp_path / "a.sass"
    file.write_text(lines(*(line.replace("HGMMA.64x8x16.F32.BF16", "QGMMA.64x8x32.F32.E4M3.E4M3") for line in LOOP)))
    loop = kernel_instructions.main_loop(kernel_instructions.disassembled(file))
    assert loop.each == 0.25
    assert "| a | 0.25 | LOP3 0.06, HMUL2 0.06, QGMMA 0.06, BRA 0.06 |" in kernel_instructions.table([("a", loop)])


def test_a_kernel_without_tensor_cores_is_told() -> None:
    with pytest.raises(ValueError, match="no loop with tensor-core instructions"):
        kernel_instructions.main_loop(lines(".L_x_1:", "LDS R2, [R1]", "BRA `(.L_x_1)"))


@pytest.mark.parametrize("text", [None, "", "no loop"])
def test_what_cannot_be_counted_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    file = tmp_path / "kernel.sass"
    if text is not None:
        file.write_text(text)
    assert kernel_instructions.main([str(file)]) == 1
    assert re.fullmatch(r"kernel_instructions: .+\n", capsys.readouterr().err)
