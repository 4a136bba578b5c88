"""Reading TOML: mounting over, adding, extending, and the sentence for each way to get it wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.plan import TUNED_KERNELS, Plan, Setting
from dsv4_serve.entrypoint.request import Request
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import select
from tests.support.patience import slowness

Write = Callable[..., Path]


def plan(catalog: Catalog, **requested: str) -> Plan:
    requested = {"hardware": "h200", **requested}
    request = Request({k: Setting(v, "test") for k, v in requested.items()})
    return resolve(select(catalog, request, lambda: HostGpus("h200", "test")), request)


def test_a_file_in_a_mounted_folder_stands_in_for_the_shipped_one(folder: Write) -> None:
    mounted = folder({"524k.toml": "[flags]\nmax-model-len = 1234\nmax-num-seqs = 1\n"})
    flags = plan(Catalog([mounted])).flags
    assert flags["max-model-len"].value == 1234
    assert flags["max-model-len"].origin == f"{mounted}/524k.toml [flags]"


def test_the_first_folder_wins(folder: Write, tmp_path: Path) -> None:
    first = folder({"mine.toml": "[flags]\nport = 1\n"})
    second = tmp_path / "second"
    second.mkdir()
    (second / "mine.toml").write_text("[flags]\nport = 2\n")
    assert plan(Catalog([first, second]), profile="mine").flags["port"].value == 1


def test_models_and_hardware_can_be_added_too(folder: Write) -> None:
    mounted = folder(
        {
            "models/mine.toml": 'extends = "acti"\nweights-gib = 100\n[flags]\nmodel = "me/mine"\n',
            "hardware/big.toml": 'extends = "h200"\nmemory-gib = 500\n',
            "nccl/quiet.toml": '[env]\nNCCL_DEBUG = "WARN"\n',
        }
    )
    resolved = plan(Catalog([mounted]), model="me/mine", hardware="big", nccl="quiet", profile="64k")
    h200 = Catalog([]).hardware("h200", "")
    of_h200 = {name: value for link in h200.chain() for name, value in link.own.env.items()}
    of_h200 |= {TUNED_KERNELS: h200.get("tuned_kernels")}  # whose INT4 experts are those of `acti`
    assert (resolved.argv()[2], resolved.environment()) == ("me/mine", {**of_h200, "NCCL_DEBUG": "WARN"})


REFUSE = "[[refuse]]\nname = 'x'\nbecause = 'y'\ninstead = 'z'\n"
BROKEN = [
    ("max-model-len 5", "mine.toml:1:15: invalid TOML"),
    ("[flags]\nport = 1\nport = 2\n", "mine.toml:3:"),
    ("a = [", "mine.toml:1:6"),
    ("flag = {}", "unknown key 'flag' (did you mean flags?)"),
    ("max-model-len = 5", "Put vLLM's flags under [flags]"),
    ("[flags]\nmax-model-length = 5\n", "did you mean max-model-len?"),
    ("[flags]\nmax_model_len = 5\n", "did you mean max-model-len?"),
    ("[flags]\ntp = 2\n", "use tensor-parallel-size instead of tp"),
    ('[flags]\nmax-model-len = "524k"\n', "write the whole number, probably 524288"),
    ("[flags]\nmax-num-seqs = true\n", "a whole number"),
    ("[flags]\nspeculative-config = 3\n", "a table"),
    ("[flags.speculative-config]\nmethd = 'mtp'\n", "did you mean method?"),
    ("[flags.attention-config]\nuse_fp4_indexer_cache = true\n", "indexer_kv_dtype"),
    ("[flags]\nmax-model-len = 2020-01-01\n", "not a valid JSON value"),
    ("[flags.hf-overrides]\nday = 2020-01-01\n", "not a valid JSON value"),
    ("[env]\nVLLM_TRITON_MLA_SPARSE = 1\n", "does not exist in vLLM 0.32.0"),
    ("[env]\nnccl_proto = 'LL'\n", "env"),
    ("requests = 0\n", "requests = 0"),
    ("extends = 'mine'\n", "leads back to this file"),
    ("extends = 'other'\n", "there is no profile 'other'"),
    (
        "[[when]]\nhardwar = 'h200'\n",
        "unknown key 'when.0.hardwar' (did you mean hardware?). Valid keys: env, flags, gate, hardware",
    ),
    ("[[when]]\nhardware = 'h2000'\n", "[[when]] hardware: there is no hardware 'h2000'. Known: b200, b300,"),
    ("[[when]]\nprofile = ['64k', 'nope']\n", "[[when]] profile: there is no profile 'nope'"),
    ("[[when]]\nhardware = 'b300'\n[when.flags]\nnope = 1\n", "no flag --nope"),
    ("[[when]]\n[when.flags]\ntensor-parallel-size = 4\n", "under [flags]"),
    ("[[refuse]]\nname = 'x'\n", "because"),
    (REFUSE + "model = 'w4a17'\n", "[[refuse]] model: there is no model 'w4a17'"),
    (REFUSE + "except-hardware = 'h2000'\n", "[[refuse]] hardware: there is no hardware 'h2000'"),
    (REFUSE + "[refuse.flags]\nmoe_backend = 'marlin'\n", "did you mean moe-backend?"),
    (REFUSE + "[refuse.flags.speculative-config]\nmethd = 'mtp'\n", "did you mean method?"),
    (REFUSE + "[refuse.env]\nVLLM_USE_DEEPGEMM = '0'\n", "did you mean VLLM_USE_DEEP_GEMM?"),
]


@pytest.mark.parametrize(("text", "says"), BROKEN, ids=[says for _, says in BROKEN])
def test_a_broken_profile_is_answered_with_file_place_and_remedy(folder: Write, text: str, says: str) -> None:
    mounted = folder({"mine.toml": text})
    with pytest.raises(ConfigError) as caught:
        plan(Catalog([mounted]), profile="mine")
    assert says in str(caught.value)
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize("text", ['[env]\nX = "a\\u0000b"\n', '[flags]\nserved-model-name = ["a\\U00000000"]\n'])
def test_a_null_character_that_no_program_can_be_given_is_reported(folder: Write, text: str) -> None:
    mounted = folder({"mine.toml": text})
    with pytest.raises(ConfigError, match="a text has a null character"):
        plan(Catalog([mounted]), profile="mine")


def test_a_message_on_a_variable_says_what_its_name_may_have(folder: Write) -> None:
    mounted = folder({"mine.toml": "[env]\nlower = 1\n", "other.toml": "[env]\nX = [1]\n"})
    with pytest.raises(ConfigError, match=r"mine\.toml: env\.lower is not valid: name a variable \(capital letters, "):
        plan(Catalog([mounted]), profile="mine")
    with pytest.raises(ConfigError, match=r"env.X = \[1\] is not valid"):
        plan(Catalog([mounted]), profile="other")


def test_a_file_that_is_not_utf8_is_reported(folder: Write) -> None:
    mounted = folder({"mine.toml": ""})
    (mounted / "mine.toml").write_bytes(b"about = '\xff'")
    with pytest.raises(ConfigError, match="byte 9 is not valid UTF-8"):
        plan(Catalog([mounted]), profile="mine")


def test_a_profile_file_that_is_not_a_file_is_reported_and_not_replaced_by_another(folder: Write) -> None:
    mounted = folder({"64k.toml/inside": ""})
    (mounted / "524k.toml").symlink_to("/no/such/file")
    for name, why in (("64k", "Is a directory"), ("524k", "No such file or directory")):
        with pytest.raises(ConfigError, match=f"^cannot read .*{name}.toml .{why}"):
            Catalog([mounted]).profile(name, "test")


def test_the_flags_of_a_file_win_over_those_of_the_one_it_extends_key_by_key(folder: Write) -> None:
    text = 'extends = "flash"\n[flags]\nport = "7"\n[flags.speculative-config]\nnum_speculative_tokens = 2\n'
    catalog = Catalog([folder({"models/mine.toml": text})])
    flags, below = catalog.model("mine", "").flags(), catalog.model("flash", "").flags()
    assert flags == {**below, "port": 7, "speculative-config.num_speculative_tokens": 2}
    assert flags["block-size"] == 256


def test_a_repository_is_that_of_the_model_whose_file_names_it(folder: Write) -> None:
    catalog = Catalog([folder({"models/a.toml": 'extends = "acti"\n'})])
    repository = catalog.model("a", "").flags()["model"]
    assert [model and model.name for model in map(catalog.model_of, (repository.lower(), "me/other", ""))] == [
        "acti",
        None,
        None,
    ]


def test_long_chains_and_very_many_files_end_quickly_with_one_sentence(folder: Write) -> None:
    chain = {f"p{n}.toml": f'extends = "p{n + 1}"\n' for n in range(900)} | {"p900.toml": ""}
    mounted = folder(chain)
    began = time.monotonic()
    with pytest.raises(ConfigError, match="more than 16 files extend each other; extend fewer"):
        Catalog([mounted]).profile("p0", "test")
    (mounted / "p900.toml").unlink()
    for number in range(900, 2000):
        (mounted / f"p{number}.toml").write_text(f'extends = "p{number + 1}"\n')
    with pytest.raises(ConfigError, match="more than 1000; use fewer"):
        Catalog([mounted]).profile("p0", "test")
    assert time.monotonic() - began < 5 * slowness()


@pytest.mark.parametrize(
    "text",
    [
        f"{'.'.join(['a'] * 20_000)} = 1\n",
        f"[flags]\nx = 1\n[{'.'.join(['a'] * 20_000)}]\n",
        f"x = {{{'.'.join(['a'] * 20_000)} = 1}}\n",
        f"x = {'[' * 20_000}",
        f"x = {'{a = ' * 2_000}",
        "x" * (1 << 20) + "= 1",
    ],
)
def test_hostile_toml_ends_quickly_with_one_sentence(folder: Write, text: str) -> None:
    mounted, began = folder({"mine.toml": text}), time.monotonic()
    with pytest.raises(ConfigError, match=r"mine\.toml.*(parts; flatten|too deeply|larger than 1 MiB|invalid TOML)"):
        Catalog([mounted]).profile("mine", "test")
    assert time.monotonic() - began < 2 * slowness()


def test_dots_in_values_are_no_parts_of_a_key(folder: Write) -> None:
    text = f'about = "{"." * 300}"\n[flags]\nmiddleware = ["{".".join(["a"] * 200)}"] # {"." * 200}\n'
    assert Catalog([folder({"mine.toml": text})]).profile("mine", "test").own.about == "." * 300


def test_catalogs_of_the_shipped_files_share_them_and_one_with_folders_has_its_own(folder) -> None:
    mounted = folder({"128k.toml": 'extends = "64k"\nrequests = 77\n'})
    before = Catalog([]).profile("128k", "test")
    assert Catalog([mounted]).profile("128k", "test").get("requests") == 77
    assert Catalog([]).profile("128k", "test") is before
    assert before.get("requests") != 77
