"""How jobs are named, and what a server is started with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qualification.gpu.layout_job import command, parse_job


@pytest.mark.parametrize(
    ("text", "name", "speculative"),
    [
        ("native", "native", {"method": "mtp", "num_speculative_tokens": 1}),
        ("w4a16:scrambled", "w4a16-mtp-scrambled", {"method": "mtp", "num_speculative_tokens": 1}),
        ("stock/pro@3+ep", "pro-stock-k3-ep", {"method": "mtp", "num_speculative_tokens": 3}),
        ("flash-0731", "flash-0731-k5", {"method": "dspark", "num_speculative_tokens": 5}),
        (
            "flash-0731-nvfp4:holed@7",
            "flash-0731-nvfp4-dspark-holed-k7",
            {"method": "dspark", "num_speculative_tokens": 7},
        ),
    ],
)
def test_a_job_says_what_is_served_and_how(text: str, name: str, speculative: dict[str, object]) -> None:
    job = parse_job(text, 1)
    assert job.name == name
    argv = command("serve --model {name}={model}", job, Path("/c"))
    assert json.loads(argv[argv.index("--speculative-config") + 1]) == speculative
    assert ("--enable-expert-parallel" in argv) == text.endswith("+ep")
    assert argv[argv.index("--skip") + 1] == "architecture-matches"


def test_stock_vllm_is_given_no_option_of_ours() -> None:
    assert "--skip" not in command("vllm serve {model}", parse_job("stock/pro", 1), Path("/c"))


@pytest.mark.parametrize("text", ["fp16", "native:bad", "native@12", "patched/native", "native+tp"])
def test_another_job_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_job(text, 1)


def test_a_job_with_host_memory_names_it_and_lets_the_cache_of_the_gpu_be_emptied() -> None:
    job, plain = parse_job("w4a16@3+ep+offload+fp8", 1), parse_job("w4a16@3+ep+fp8", 1)
    assert job.name == "w4a16-k3-ep-offload-fp8"
    assert set(job.flags) - set(plain.flags) == {"--kv-offloading-size", "2"}
    assert job.variables == plain.variables | {"VLLM_SERVER_DEV_MODE": "1"}
    with pytest.raises(ValueError, match="expected"):
        parse_job("w4a16+offload+ep", 1)


def test_a_job_of_shared_beginnings_lets_answers_say_what_was_cached() -> None:
    job, plain = parse_job("native+shared", 1), parse_job("native", 1)
    assert (job.name, job.shared, plain.shared) == ("native-shared", True, False)
    assert set(job.flags) - set(plain.flags) == {"--enable-prompt-tokens-details"}
    assert job.variables == plain.variables
    both = parse_job("w4a16@3+ep+offload+shared+fp8", 1)
    assert (both.name, both.inputs) == ("w4a16-k3-ep-offload-shared-fp8", "fp8")
    with pytest.raises(ValueError, match="expected"):
        parse_job("native+shared+offload", 1)
