"""One safetensors header: what it declares, and every way in which it can be broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from dsv4_serve.demo.v4_tensors import bf16, f32, save
from dsv4_serve.entrypoint.checkpoint import safetensors
from dsv4_serve.entrypoint.checkpoint.safetensors import Shard


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save(tmp_path / "a.safetensors", {"x": bf16(np.ones((4, 8))), "y.weight": f32(np.ones(3)), "z": f32(np.array(1.0))})
    return tmp_path / "a.safetensors"


def read(path: Path) -> Shard:
    return safetensors.shard(path.name, *safetensors.raw(path))


def with_header(path: Path, header: Any, data: int = 0) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(data))
    return path


def entry(begin: int, end: int, shape: list[int], dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_header_is_read_as_safetensors_reads_it(file: Path) -> None:
    shard = read(file)
    with safe_open(file, "np") as opened:
        assert set(shard.tensors) == set(opened.keys())
    assert (shard.fault, shard.declared) == ("", file.stat().st_size)
    assert shard.tensors["x"] == {"dtype": "BF16", "shape": [4, 8], "data_offsets": [0, 64]}


def test_only_the_header_is_read(file: Path) -> None:
    size, start = safetensors.raw(file)
    assert size - len(start) == 4 * 8 * 2 + 3 * 4 + 4


def test_a_truncated_file_still_declares_its_full_size(file: Path) -> None:
    full = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(full - 7)
    shard = read(file)
    assert (shard.declared - shard.size, shard.fault) == (7, "")
    with pytest.raises(SafetensorError), safe_open(file, "np"):
        pass


def test_a_file_cut_inside_its_header_says_where(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(40)
    assert "ends inside its header, after 40 of" in read(file).fault


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "does not begin with the length of a header"),
        (b"\0\0\0", "does not begin with the length of a header"),
        (b"\xff" * 64, "does not begin with the length of a header"),
        (safetensors.POINTER + b"v1\noid sha256:0\nsize 5\n", "git-lfs pointer"),
    ],
)
def test_a_file_that_is_not_safetensors_is_reported(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    assert fault in read(tmp_path / "a.safetensors").fault


@pytest.mark.parametrize(
    ("header", "data", "fault"),
    [
        (b"{", 0, "its header is not valid JSON"),
        (b"{\xfe\xff", 0, "its header is not valid JSON"),
        (b"[" * 100_000, 0, "its header is not a JSON object"),
        ([1], 0, "its header is not a JSON object"),
        ({"x": 1}, 0, "does not describe 'x'"),
        ({"x": {"dtype": "U8", "shape": "ab", "data_offsets": [0, 1]}}, 1, "gives 'x' a shape"),
        ({"x": entry(0, 4, [5])}, 5, "gives 'x' 4 bytes for [5]"),
        ({"x": entry(-4, 0, [4])}, 4, "gives 'x' a shape or offsets"),
        ({"x": entry(0, 4, [4]), "y": entry(2, 6, [4])}, 8, "'y' overlaps the tensor before it"),
        ({"x": entry(4, 8, [4])}, 8, "'x' leaves a gap before it"),
    ],
)
def test_a_header_that_describes_no_file_is_a_fault(tmp_path: Path, header: Any, data: int, fault: str) -> None:
    assert fault in read(with_header(tmp_path / "a.safetensors", header, data)).fault


def test_a_dtype_that_is_not_known_is_believed(tmp_path: Path) -> None:
    assert not read(with_header(tmp_path / "a.safetensors", {"x": entry(0, 3, [4], "F6_E2M3")}, 3)).fault


@given(st.binary(max_size=200), st.integers(0, 64))
def test_no_bytes_raise(tmp_path_factory: pytest.TempPathFactory, text: bytes, length: int) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + text)
    shard = read(path)
    assert shard.fault or shard.declared >= 8


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.floats(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_no_json_raises(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    read(
        with_header(
            tmp_path_factory.mktemp("fuzz") / "a.safetensors",
            {"x": value, "y": {"dtype": value, "shape": value, "data_offsets": value}},
        )
    )


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ({"a": entry(0, 4, [4]), "b": entry(2, 6, [4]), "c": entry(8, 10, [2])}, "'b' overlaps the tensor before it"),
        ({"a": entry(0, 4, [4]), "b": entry(6, 8, [2])}, "'b' leaves a gap before it"),
        ({"a": entry(2, 4, [2])}, "'a' leaves a gap before it"),
        ({"a": entry(0, 1, [-1, -1])}, "not whole numbers from 0 up"),
        ({"a": {**entry(0, 3, []), "shape": [1.5, 2]}}, "not whole numbers from 0 up"),
        ({"a": {**entry(0, 1, [1]), "data_offsets": [False, True]}}, "not whole numbers from 0 up"),
        ({"a": entry(0, 1, [True])}, "not whole numbers from 0 up"),
        ({"a": {**entry(0, 1, [1]), "shape": {}}}, "not whole numbers from 0 up"),
        ({"a": entry(0, 4, [4], "Q4")}, "unknown dtype 'Q4'"),
        ({"a": {**entry(0, 4, [4]), "dtype": ["U8"]}}, "does not describe 'a'"),
        ({"a": {**entry(0, 4, [4]), "data_offsets": [0, 4, 4]}}, "does not describe 'a'"),
        ({"__metadata__": ["pt"], "a": entry(0, 4, [4])}, "__metadata__ is not a table of strings"),
        ({"__metadata__": {"n": 1}, "a": entry(0, 4, [4])}, "__metadata__ is not a table of strings"),
        (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "twice"),
        (b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', "NaN is not a number"),
        (b'{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "half of a surrogate pair"),
        (b" {}", "not a JSON object"),
        (b'{"a":' + b"[" * 100_000, "nested too deeply"),
    ],
)  # fmt: skip
def test_headers_that_the_format_forbids(tmp_path: Path, header: Any, fault: str) -> None:
    path = with_header(tmp_path / "a.safetensors", header, 10)
    assert fault in read(path).fault
    with pytest.raises(SafetensorError), safe_open(path, "np"):
        pass


NUMBERS = st.one_of(st.integers(-1, 9), st.sampled_from([True, 1.5, "1", None, 1 << 64]))
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "BF16", "F4", "F8_E8M0", "C64", "Q4", 7]),
        "shape": st.one_of(st.lists(NUMBERS, max_size=2), st.lists(st.integers(1, 3), max_size=2)),
        "data_offsets": st.lists(NUMBERS, min_size=2, max_size=2),
    }
)
HEADERS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "__metadata__"]), st.one_of(ENTRIES, st.dictionaries(st.just("k"), st.just("v")))
)


@st.composite
def nearly_sound(draw: st.DrawFn) -> dict[str, Any]:
    """Tensors one after the other, of which some numbers are then changed."""
    header, end = {}, 0
    for name in draw(st.lists(st.sampled_from("abcd"), unique=True)):
        length = draw(st.integers(0, 4))
        header[name] = entry(end, end + length, [length])
        end += length
    for tensor in header.values():
        if draw(st.integers(0, 5)) == 0:
            tensor[draw(st.sampled_from(["shape", "data_offsets"]))][0] = draw(NUMBERS)
    return header


@given(st.one_of(HEADERS, nearly_sound()), st.integers(0, 12))
def test_a_header_is_faulty_where_safetensors_says_so(
    tmp_path_factory: pytest.TempPathFactory, header: Any, data: int
) -> None:
    path = with_header(tmp_path_factory.getbasetemp() / "fuzzed.safetensors", header, data)
    shard = read(path)
    try:
        with safe_open(path, "np"):
            accepted = True
    except SafetensorError:
        accepted = False
    assert accepted == (not shard.fault and shard.declared == shard.size), shard
