"""What a start compiled is what it added to the cache, by compiler."""

from __future__ import annotations

from pathlib import Path

from dsv4_serve.entrypoint.supervisor import compiled


def write(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def test_kernels_are_counted_and_locks_logs_and_scratch_files_are_not(tmp_path: Path) -> None:
    assert set(compiled.count(tmp_path / "none").values()) == {0}
    write(tmp_path, "triton/A/k.cubin", "triton/A/k.ptx", "vllm/deep_gemm/cache/x/kernel.cubin")
    write(tmp_path, "triton/A/k.lock", "humming/a/stderr.log", "tilelang/tmp/half", "starts/a.json", "packs/a.json")
    assert {name: files for name, files in compiled.count(tmp_path).items() if files} == {"triton": 2, "vllm": 1}


def test_a_start_says_what_it_added(tmp_path: Path) -> None:
    write(tmp_path, "triton/A/k.cubin")
    before = compiled.count(tmp_path)
    assert compiled.sentence(before, before) == "kernel cache: this start compiled nothing"
    write(tmp_path, "triton/B/k.cubin", "triton/B/k.ptx", "cuda/0/a")
    said = compiled.sentence(before, compiled.count(tmp_path))
    assert said == "kernel cache: this start added 3 files: cuda 1, triton 2"
