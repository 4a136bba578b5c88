"""vLLM's real parser and config classes take every plan that the product allows."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.request import Layer, Request
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import select
from dsv4_serve.entrypoint.supervisor import vllm_process
from tools.golden.grid import profile_files

ROOT = Path(__file__).parents[2]
CATALOG = Catalog([])
EVERY_SIZE = bool(os.environ.get("TEST_DEEP"))
KINDS = ("profile", "model", "hardware")
GOOD = ["vllm", "serve", "some/model", "--speculative-config", '{"method":"mtp","num_speculative_tokens":1}']
BROKEN: dict[str, tuple[list[str], dict[str, str], str]] = {
    "unknown flag": (["--max-model-length", "4096"], {}, "unrecognized arguments"),
    "wrong choice": (["--moe-backend", "marlinn"], {}, "invalid choice"),
    "wrong type": (["--max-num-seqs", "four"], {}, "invalid int value"),
    "out of range": (["--gpu-memory-utilization", "1.5"], {}, "CacheConfig refuses gpu_memory_utilization"),
    "unknown attention backend": (["--attention-backend", "FLASH"], {}, "AttentionConfig refuses backend"),
    "unknown key": (["--attention-config", '{"use_fp4_indexer_cache":true}'], {}, "use_fp4_indexer_cache"),
    "unknown nested key": (["--compilation-config", '{"pass_config":{"fuse":true}}'], {}, "fuse"),
    "unknown draft key": (
        ["--speculative-config", '{"method":"mtp","num_speculative_token":1}'],
        {},
        "num_speculative_token",
    ),
    "wrong draft method": (["--speculative-config", '{"method":"mpt","num_speculative_tokens":1}'], {}, "method"),
    "unknown tool parser": (["--enable-auto-tool-choice", "--tool-call-parser", "deepseek"], {}, "deepseek"),
    "unknown reasoning parser": (["--reasoning-parser", "deepseek"], {}, "deepseek"),
    "unknown load format": (["--load-format", "fast"], {}, "fast"),
    "tool choice without parser": (["--enable-auto-tool-choice"], {}, "requires --tool-call-parser"),
    "deprecated flag": (["--log-config-file", "log.json"], {}, "deprecated"),
    "model as a flag": (["--model", "other/model"], {}, "positional"),
    "unknown variable": ([], {"VLLM_TEST_FORCE_FP8_MARLIN": "1"}, "VLLM_TEST_FORCE_FP8_MARLIN"),
    "variable that vLLM cannot read": ([], {"VLLM_USE_DEEP_GEMM": "true"}, "invalid literal"),
}
FILES: dict[str, dict[str, str | list[str]]] = {
    "good file": {
        "additional-config": json.dumps({"password": "ü'\"\\", "epsilon": 1e-06}),
        "lora-modules": ["a=/x", '{"name": "b", "path": "/y"}'],
    },
    "bad file": {"max-num-seqs": "four"},
}
"""Flags that reach vLLM in a file, as they hold a secret."""

pytestmark = [
    pytest.mark.slow,
    *([pytest.mark.deep] if EVERY_SIZE else []),
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed beside this interpreter"),
]


def every_plan() -> Iterator[tuple[str, Plan]]:
    """
    Each allowed profile/model/hardware with its plan at the largest size that is allowed.

    `make test-deep` tries every size, where all flags but one or two are the same, of hardware that somebody measured.
    """
    for names in itertools.product(*map(CATALOG.names, KINDS)):
        plans = ((size, plan) for size in (8, 4, 2, 1) if (plan := planned(names, size)))
        measured = "unmeasured" not in profile_files("hardware")[names[-1]].get("about", "")
        for size, plan in plans if measured and EVERY_SIZE else itertools.islice(plans, 1):
            yield "/".join(map(str, (*names, size))), plan


def planned(names: tuple[str, ...], size: int) -> Plan | None:
    """The plan; None where it is refused."""
    named = dict(zip(KINDS, names, strict=True))
    named["model"] += "" if "model" in CATALOG.model(named["model"], "").flags() else "=/models/weights"
    choices = {kind: Setting(name, "command line") for kind, name in named.items()}
    size_flag = Layer({"tensor-parallel-size": Setting(size, "command line")})
    request = Request(choices, command_line=size_flag)
    try:
        return resolve(select(CATALOG, request, lambda: pytest.fail("the hardware was named")), request)
    except ConfigError:
        return None


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Complaints by label: `/`-joined names for plans, a description for the broken ones; vLLM is imported once."""
    plans: dict[str, Any] = {label: {"argv": plan.argv(), "env": plan.environment()} for label, plan in every_plan()}
    plans |= {label: {"argv": GOOD + words, "env": env} for label, (words, env, _) in BROKEN.items()}
    plans["good"] = {"argv": GOOD, "env": {}}
    for label, flags in FILES.items():
        folder = tmp_path_factory.mktemp("config")
        plans[label] = {"argv": [*GOOD[:3], "--config", str(vllm_process.secret_config(folder, flags))], "env": {}}
    texts = {label: json.dumps(plan) for label, plan in plans.items()}  # many say the same: it is asked once
    run = subprocess.run(
        [sys.executable, "-m", "tests.profiles.ask_vllm"],
        input=json.dumps({text: json.loads(text) for text in texts.values()}),
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    answered: dict[str, list[str]] = json.loads(run.stdout)
    return {label: answered[text] for label, text in texts.items()}


@pytest.mark.parametrize("profile", CATALOG.names("profile"))
def test_vllm_takes_every_plan_of_a_profile(answers: dict[str, list[str]], profile: str) -> None:
    of_this = {label: said for label, said in answers.items() if label.startswith(f"{profile}/")}
    assert of_this, f"no model, hardware and tensor parallel size is allowed for {profile}"
    assert {label: said for label, said in of_this.items() if said} == {}


@pytest.mark.parametrize("label", BROKEN)
def test_a_broken_plan_is_complained_about(answers: dict[str, list[str]], label: str) -> None:
    assert BROKEN[label][2] in "\n".join(answers[label])


def test_a_good_plan_is_not(answers: dict[str, list[str]]) -> None:
    assert answers["good"] == []


def test_vllm_takes_flags_from_a_file_as_from_the_command_line(answers: dict[str, list[str]]) -> None:
    assert answers["good file"] == []
    assert "invalid int value" in "".join(answers["bad file"])
