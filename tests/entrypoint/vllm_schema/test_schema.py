"""The facts are what the installed vLLM says; what we call retired is gone, and what we send people to is there."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.vllm_schema import schema
from tests.support.each import each

ROOT = Path(__file__).parents[3]
FACTS_FILE = ROOT / "entrypoint" / "vllm_schema" / "vllm-0.32.0.json"
FACTS: dict[str, Any] = json.loads(FACTS_FILE.read_text(encoding="utf-8"))
RETIRED: dict[str, dict[str, dict[str, Any]]] = tomllib.loads(
    (ROOT / "entrypoint/vllm_schema/retired.toml").read_text(encoding="utf-8")
)
ENTRIES = [(kind, name) for kind, names in RETIRED.items() for name in names]

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed beside this interpreter")


def describe(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tools.describe_vllm", *words]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def names_in_vllms_source() -> dict[str, set[str]]:
    """Every VLLM_ word, and every quoted word that begins with two dashes."""
    spec = find_spec("vllm")
    assert spec
    assert spec.submodule_search_locations
    sources = [file.read_text(encoding="utf-8") for file in Path(spec.submodule_search_locations[0]).rglob("*.py")]
    return {
        "env": {word for source in sources for word in re.findall(r"\bVLLM_\w+", source)},
        "flag": {word for source in sources for word in re.findall(r"[\"']--([\w-]+)[\"']", source)},
    }


def settings(prefix: str, described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every JSON flag's keys, as flag.key.key."""
    for key, facts in described.get("keys", {}).items():
        yield f"{prefix}.{key}", facts
        yield from settings(f"{prefix}.{key}", facts)


JSON_KEYS = dict(pair for flag, described in FACTS["json"].items() for pair in settings(flag, described))
CHOICES = [f"{name}={c}" for name, kind in (FACTS["flags"] | JSON_KEYS).items() for c in kind.get("choices", ())]
KNOWN = {"env": FACTS["env"], "flag": FACTS["flags"], "json": JSON_KEYS, "value": CHOICES}


@pytest.mark.slow
@needs_vllm
def test_the_facts_are_what_the_installed_vllm_says_and_check_shows_a_stale_one_and_fails(tmp_path: Path) -> None:
    """One question for both, as it imports vLLM: against a file with one stale name, only this name differs."""
    name, old = '"max-num-seqs"', '"max-sequences"'
    stale = tmp_path / "vllm.json"
    stale.write_text(FACTS_FILE.read_text(encoding="utf-8").replace(name, old), encoding="utf-8")
    checked = describe("--check", str(stale))
    assert checked.returncode == 1, checked.stderr
    differing = [line for line in checked.stdout.splitlines() if not line.startswith(("---", "+++", "@@"))]
    removed = [line.removeprefix("-") for line in differing if line.startswith("-")]
    added = [line.removeprefix("+") for line in differing if line.startswith("+")]
    assert [line for line in removed if line.startswith(old)]
    assert [line.replace(old, name) for line in removed] == added


def test_the_facts_stay_small_enough_to_load_in_the_commands_budget() -> None:
    assert FACTS_FILE.stat().st_size < 150_000


def test_the_facts_know_what_the_parser_is_known_for() -> None:
    flags = FACTS["flags"]
    assert flags["tensor-parallel-size"] == {"type": "int", "aliases": ["-tp"], "min": 1}
    assert flags["max-model-len"] == {"type": "int", "human": True, "auto": True, "min": -1}
    assert flags["enable-prefix-caching"] == {"type": "bool", "negatable": True}
    assert flags["gpu-memory-utilization"]["above"] == 0
    assert flags["gpu-memory-utilization"]["max"] == 1
    assert flags["served-model-name"]["nargs"] == "+"
    assert "deepseek_v4" in flags["tool-call-parser"]["known"]
    assert JSON_KEYS["speculative-config.num_speculative_tokens"] == {"type": "int", "min": 1}
    assert "mtp" in JSON_KEYS["speculative-config.method"]["choices"]
    assert FACTS["env"]["VLLM_SKIP_P2P_CHECK"]["choices"] == ["0", "1", "False", "false"]  # "true" reads as false


@pytest.mark.parametrize("what", ["drafts", "draft_tokens", "accepted_tokens", "accepted_tokens_per_pos"])
def test_the_facts_name_the_counters_that_draft_acceptance_is_read_from(what: str) -> None:
    assert f"vllm:spec_decode_num_{what}_total" in FACTS["metrics"]


@each("kind, name", ENTRIES)
def test_a_retired_name_is_unknown_to_vllm(kind: str, name: str) -> None:
    assert [known for known in KNOWN[kind] if fnmatchcase(known, name)] == []


@pytest.mark.parametrize("setting", ["attention-backend", "speculative-config.attention_backend"])
def test_a_retired_value_has_its_answer_and_no_list(setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        schema.check_value(setting, "B12X_MLA_SPARSE", "here")
    assert str(caught.value).startswith(
        f"here: {setting}=B12X_MLA_SPARSE does not exist in vLLM 0.32.0. Leave it out: it belongs to community images."
    )


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("attention-backend", "FLASHINFER_MLA_SPARS", "(did you mean FLASHINFER_MLA_SPARSE or FLASHINFER_MLA"),
        ("attention-backend", "zzz", "is not valid in vLLM 0.32.0, which has 47 others."),
        ("dtype", "fp8", "Allowed values: auto, bfloat16, float, float16, float32, half."),
    ],
)
def test_a_wrong_value_is_answered_with_the_near_ones_where_there_are_many(setting: str, value: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        schema.check_value(setting, value, "here")
    assert says in str(caught.value)
    assert len(str(caught.value)) < 200


@needs_vllm
@each("kind, name", [entry for entry in ENTRIES if entry[0] in ("env", "flag")])
def test_a_retired_name_stands_nowhere_in_vllms_source(
    names_in_vllms_source: dict[str, set[str]], kind: str, name: str
) -> None:
    names = names_in_vllms_source[kind]
    assert {"VLLM_USE_DEEP_GEMM", "max-model-len"} & names
    assert [word for word in names if fnmatchcase(word, name)] == []


@each("kind, name", ENTRIES)
def test_what_replaced_a_retired_name_exists(kind: str, name: str) -> None:
    for replacement in RETIRED[kind][name]["replaced-by"]:
        setting, _, choice = replacement.partition("=")
        known = FACTS["env"].get(setting) or FACTS["flags"].get(setting) or JSON_KEYS.get(setting)
        assert known is not None, replacement
        assert not choice or choice in known["choices"], replacement
        said = {setting.rpartition(".")[2], choice or setting}
        assert any(word in RETIRED[kind][name]["answer"] for word in said), f"the answer does not speak of {setting}"


@each("kind, name", ENTRIES)
def test_a_retired_name_is_answered_in_a_sentence_with_its_release_and_source(kind: str, name: str) -> None:
    entry = RETIRED[kind][name]
    assert set(entry) == {"answer", "replaced-by", "since", "source"}
    assert entry["answer"].endswith(".")
    assert " " in entry["answer"]
    assert re.fullmatch(r"0\.\d+\.\d+|fork|never", entry["since"])
    assert entry["source"]


@pytest.mark.parametrize(
    "name",
    [
        "VLLM_TEST_FORCE_FP8_MARLIN",
        "VLLM_TRITON_MLA_SPARSE",
        "VLLM_TRITON_MLA_SPARSE_HEAD_BLOCK_SIZE",
        "VLLM_TRITON_MLA_SPARSE_QUERY_CHUNK_SIZE",
        "VLLM_TRITON_MLA_SPARSE_TOPK_CHUNK_SIZE",
        "VLLM_TRITON_MLA_SPARSE_MATMUL_DECODE",
        "VLLM_ENABLE_DEEPSEEK_V4_SPARSE_MLA_WARMUP",
        "VLLM_FLASH_V4_SERVICE_HOST",  # a Kubernetes Service called vllm-flash-v4
        "VLLM_FLASH_V4_PORT_8000_TCP_ADDR",
    ],
)
def test_a_name_from_the_model_cards_that_vllm_lacks_has_exactly_one_answer(name: str) -> None:
    assert len([pattern for pattern in RETIRED["env"] if fnmatchcase(name, pattern)]) == 1


@pytest.mark.parametrize("name", ["VLLM_USE_FLASHINFER_SAMPLER", "VLLM_USE_LAYERNAME", "VLLM_SKIP_P2P_CHECK"])
def test_a_name_from_the_model_cards_that_vllm_still_has_is_not_retired(name: str) -> None:
    assert name in FACTS["env"]
    assert not [pattern for pattern in RETIRED["env"] if fnmatchcase(name, pattern)]


@pytest.mark.parametrize(
    ("name", "hint"), [("VLLM_USE_DEEPGEMM", " (did you mean VLLM_USE_DEEP_GEMM?)"), ("VLLM_USE_B12X_MHC", "")]
)
def test_a_variable_is_suggested_only_for_one_spelled_alike(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"does not read {name}{hint}; correct")):
        schema.check_variable(name, "1", "environment")


@pytest.mark.parametrize(
    ("value", "numbers"),
    [("5.6k", "reads k as 1000; write the whole number, 5600 or 5734"), ("128k", "probably 131072")],
)
def test_a_suffix_is_answered_with_the_numbers_that_it_may_mean(value: str, numbers: str) -> None:
    with pytest.raises(ConfigError, match=numbers):
        schema.check_value("max-num-batched-tokens", value, "command line")


@pytest.mark.parametrize(
    ("text", "number"), [("5.6g", 5_600_000_000), ("5G", 5 << 30), ("512m", 512_000_000), ("7", 7)]
)
def test_bytes_are_read_as_vllm_reads_them(text: str, number: int) -> None:
    assert schema.check_value("kv-cache-memory-bytes", text, "command line") == number
    for wrong in ("5.6G", "5gb", "x"):
        with pytest.raises(ConfigError, match="must be a whole number"):
            schema.check_value("kv-cache-memory-bytes", wrong, "command line")


PORTS = [name for name in schema.facts()["flags"] if re.fullmatch(r"(.*-)?port", name)]
PORTS += ["kv-transfer-config.kv_port", "ec-transfer-config.ec_port"]


@pytest.mark.parametrize("name", PORTS)
@pytest.mark.parametrize("port", [0, -1, 65536, 70000])
def test_a_port_is_one_that_a_socket_can_have(name: str, port: int) -> None:
    with pytest.raises(ConfigError, match="it must be at least 1 and at most 65535"):
        schema.check_value(name, port, "here")
    assert schema.check_value(name, 65535, "here") == 65535


def test_the_port_of_a_variable_is_checked_and_may_be_unset_by_0() -> None:
    assert {"port", "master-port", "data-parallel-rpc-port"} < set(PORTS)
    with pytest.raises(ConfigError, match="VLLM_PORT = 70000 is out of range"):
        schema.check_variable("VLLM_PORT", "70000", "here")
    schema.check_variable("VLLM_DP_MASTER_PORT", "0", "here")
