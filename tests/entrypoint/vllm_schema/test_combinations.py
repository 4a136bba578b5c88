"""The table of kernels is what the installed vLLM answers, for what the image holds."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.vllm_schema import combinations, schema

ROOT = Path(__file__).parents[3]
FILE = ROOT / "entrypoint" / "vllm_schema" / "combinations-0.32.0.json"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed beside this interpreter")
def test_the_installed_vllm_answers_what_the_table_says() -> None:
    argv = [sys.executable, "-m", "tools.combinations", "--check", str(FILE)]
    answer = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.unit
def test_what_is_taken_for_installed_is_what_the_image_holds() -> None:
    held = (ROOT / "requirements/gpu.txt").read_text(encoding="utf-8")
    named = json.loads(FILE.read_text(encoding="utf-8"))["present"].values()
    pins = {pin for text in named for pin in re.findall(r"([a-z0-9-]+) (\d[\w.]+)", text)}
    assert len(pins) == 3
    for name, version in pins:
        assert re.search(rf"^{name}=={re.escape(version)}\b", held, re.MULTILINE), name
    for name in ("b12x", "hpc", "amd-quark"):
        assert not re.search(rf"^{name}==", held, re.MULTILINE)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("scheme", "capability", "backend", "mode", "kind"),
    [
        ("fp8-mxfp4", "10.0", "flashinfer_trtllm", "tp", ""),
        ("fp8-mxfp4", "12.0", "flashinfer_trtllm", "tp", combinations.DEVICE),
        ("fp8-mxfp4", "10.3", "deep_gemm_mega_moe", "tp", combinations.PARALLEL),
        ("fp8-mxfp4", "10.3", "deep_gemm_mega_moe", "dp+ep", ""),
        ("nvfp4", "12.1", "b12x", "ep", combinations.PACKAGE),
        ("modelopt-nvfp4", "9.0", "flashinfer_b12x", "tp", combinations.CLAMP),
        ("w4a16", "10.0", "flashinfer_trtllm", "tp", combinations.SCHEME),
        ("unquantized", "9.0", "marlin", "tp", combinations.SCHEME),
        ("unquantized", "9.0", "auto", "tp", ""),
    ],
)
def test_a_backend_runs_or_has_a_kind_of_reason(
    scheme: str, capability: str, backend: str, mode: str, kind: str
) -> None:
    experts = combinations.experts(scheme, capability)
    assert experts
    assert experts.refusal(backend, mode) == kind


@pytest.mark.unit
def test_auto_is_the_kernel_that_vllm_selects() -> None:
    int4, mxfp4 = combinations.experts("w4a16", "12.0"), combinations.experts("fp8", "9.0")
    assert int4
    assert mxfp4
    assert [int4.chosen("auto", "tp"), int4.chosen("humming", "tp")] == ["marlin", "humming"]
    assert [mxfp4.chosen("auto", mode) for mode in ("tp", "ep")] == ["triton", "flashinfer_cutlass"]


@pytest.mark.unit
def test_nothing_is_said_of_what_vllm_was_not_asked() -> None:
    assert combinations.experts("awq", "9.0") is combinations.experts("fp8", "8.0") is None
    assert combinations.attention("8.0") is combinations.linear("8.0") is None


@pytest.mark.unit
def test_no_answer_for_a_retired_name_sends_to_a_kernel_that_runs_nowhere() -> None:
    table = json.loads(FILE.read_text(encoding="utf-8"))
    runs = {name for schemes in table["experts"].values() for gpu in schemes.values() for name in gpu["runs"]}
    linear = set.intersection(*(set(gpu["refused"]) for gpu in table["linear"].values()))
    attention = {name for gpu in table["attention"].values() for name in gpu}
    entries = [entry for kind in schema.retired().values() for entry in kind.values()]
    replaced = [text.partition("=") for entry in entries for text in entry["replaced-by"]]
    for flag, _, value in replaced:
        assert flag != "moe-backend" or not value or value in runs, value
        assert flag != "linear-backend" or value not in linear, value
        assert flag != "attention-backend" or not value or value in attention, value
