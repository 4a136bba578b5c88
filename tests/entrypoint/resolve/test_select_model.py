"""The files decide which model is served: a folder's, those in the Hub's cache, or those on the Hub; then the table."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.plan import Setting
from dsv4_serve.entrypoint.resolve import constraints
from dsv4_serve.entrypoint.weights import hub_files
from tests.support import checkpoints
from tests.support.checkpoints import LAYOUTS
from tests.support.http_servers import http_servers
from tests.support.plans import CATALOG, request, resolved, selected

COMMIT = "0123456789" * 4
OFF = {"speculative-config.num_speculative_tokens": 0}


def cached(home: Path, repository: str, layout: str) -> dict[str, str]:
    """Put a layout into the cache of an environment as huggingface_hub does, and return the environment."""
    place = home / "hub" / f"models--{repository.replace('/', '--')}"
    LAYOUTS[layout](place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs/main").write_text(COMMIT)
    return {"HF_HOME": str(home)}


def test_a_folder_and_its_repository_in_the_cache_give_the_same_answer(tmp_path: Path) -> None:
    repository = "someone/DeepSeek-V4-Flash-0731-tuned"
    operator = cached(tmp_path / "home", repository, "flash-0731")
    folder = LAYOUTS["flash-0731"](tmp_path / "folder")
    by_id = selected(request(hardware="h200", model=repository, operator=operator))
    by_folder = selected(request(hardware="h200", model=str(folder)))
    for one in (by_id, by_folder):
        assert (one.model.name, one.drafter.kind, one.identity) == ("flash-0731", "dspark", by_folder.identity)
    assert by_id.weights_gib == by_folder.weights_gib == by_folder.identity.bytes / (1 << 30)  # type: ignore[union-attr]
    plan = resolved(request(hardware="h200", model=repository, operator=operator))
    assert plan.flags["served-model-name"].value == ["deepseek-v4-flash-0731-tuned", repository]
    assert plan.choices["checkpoint"].origin == "files in the Hub's cache, 012345678901"


@pytest.mark.parametrize(
    ("repository", "model", "drafter"),
    [
        ("deepseek-ai/DeepSeek-V4-Flash", "flash", "mtp"),
        ("deepseek-ai/deepseek-v4-flash-base", "flash-base", "mtp"),
        ("deepseek-ai/DeepSeek-V4-Flash-DSpark", "flash-0731", "dspark"),
        ("deepseek-ai/DeepSeek-V4-Flash-Vision-Exp", "flash-vision", "dspark"),
        ("deepseek-ai/DeepSeek-V4-Pro-0813", "pro-0813", "dspark"),
        ("deepseek-ai/DeepSeek-V4.1-Flash-1017", "v41-flash", "dspark"),
        ("nvidia/DeepSeek-V4-Flash-0731-NVFP4", "flash-0731-nvfp4", "dspark"),
        ("nvidia/DeepSeek-V4-Pro-NVFP4", "pro-nvfp4", "mtp"),
        ("nvidia/DeepSeek-V4.1-Flash-NVFP4", "v41-flash-nvfp4", "dspark"),
        ("nvidia/DeepSeek-V4.1-Flash-1017-NVFP4", "v41-flash-nvfp4", "dspark"),
        ("redhatai/DeepSeek-V4-Flash-0731-NVFP4", "nvfp4", "dspark"),
        ("RedHatAI/DeepSeek-V4-Flash-NVFP4-FP8", "nvfp4", "none"),
        ("nvfp4=RedHatAI/DeepSeek-V4-Flash-NVFP4-FP8", "nvfp4", "none"),
        ("canada-quant/DeepSeek-V4-Flash-W4A16-FP8", "w4a16", "none"),
    ],
)
def test_a_known_repository_is_its_model_without_a_network(repository: str, model: str, drafter: str) -> None:
    found = selected(request(hardware="b300", model=repository))
    assert (found.model.name, found.drafter.kind) == (model, drafter)


def test_a_repository_without_the_drafter_is_served_undrafted_and_counted_without_it() -> None:
    plan = resolved(request(hardware="b300", model="RedHatAI/DeepSeek-V4-Flash-NVFP4-FP8"))
    assert (plan.draft_tokens, plan.choices["drafter"].value) == (0, "none")
    assert plan.flags["model"].value == "RedHatAI/DeepSeek-V4-Flash-NVFP4-FP8"
    assert selected(request(hardware="b300", model="RedHatAI/DeepSeek-V4-Flash-NVFP4-FP8")).weights_gib == 155.0


@pytest.mark.parametrize(
    "words",
    [
        "https://huggingface.co/{}",
        "http://www.huggingface.co/{}/",
        "huggingface.co/{}",
        "https://hf.co/{}?library=vllm#files",
        "hf://{}",
        "https://huggingface.co/{}/tree/main",
        "https://mirror.example/hub/{}",
        "{}/",
        " {} ",
        "{}@main",
        "flash-0731=https://huggingface.co/{}",
    ],
)
def test_an_address_of_the_hub_is_its_repository(words: str) -> None:
    repository = "deepseek-ai/DeepSeek-V4-Flash-0731"
    operator = {"HF_ENDPOINT": "https://mirror.example/hub/"}
    plan = resolved(request(hardware="b300", model=words.format(repository), operator=operator))
    assert (plan.choices["model-name"].value, plan.flags["model"].value) == ("flash-0731", repository)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("some/one@v2", "names a revision; use --model some/one --revision v2."),
        ("https://huggingface.co/some/one/tree/v2", "use --model some/one --revision v2."),
        ("flash=some/one@0123abc", "use --model some/one --revision 0123abc."),
        ("https://huggingface.co/some", "names no model on the Hub; use OWNER/NAME."),
        ("https://huggingface.co/datasets/some/one", "names no model on the Hub; use OWNER/NAME."),
        ("https://modelscope.cn/models/some/one", "an address of another site; use OWNER/NAME on the Hub"),
        ("ftp://host/model", "an address of another site"),
        (
            "s3://bucket/model",
            "the files in s3://bucket/model are not read; name their model, NAME=s3://bucket/model.",
        ),
        ("/nope", "there is no folder /nope; correct the path, or mount the folder there."),
        ("./nope", "there is no folder ./nope; correct"),
        ("some/one@refs/pr/1", "use --model some/one --revision refs/pr/1."),
        ("some/one:v2", "use --model some/one --revision v2."),
        ("https://huggingface.co", "names no model on the Hub; use OWNER/NAME."),
        ("https://me:secret@example.org/some/one", "test: https://example.org/some/one is an address of another site"),
        ("Flash", "'Flash' is not a known model, its repository, or a folder; write flash."),
        ("DeepSeek-V4-Flash", "or a folder; write deepseek-ai/DeepSeek-V4-Flash."),
        ("flash_0731=/nope", "there is no model 'flash_0731'; write flash-0731=/nope."),
        ("other=/nope", "there is no model 'other'. Choose one of acti,"),
        ("flash=", "'flash=' ends at the equals sign"),
        ("  ", "test is empty; name a model"),
    ],
)
def test_other_words_get_the_answer_to_their_kind(words: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        selected(request(hardware="h200", model=words))
    assert says in str(caught.value)


def test_a_revision_that_is_set_as_well_is_no_contradiction() -> None:
    named = {"hardware": "b300", "model": "deepseek-ai/DeepSeek-V4-Flash-0731@v2", "revision": "v2"}
    assert resolved(request(**named)).flags["model"].value == "deepseek-ai/DeepSeek-V4-Flash-0731"


@pytest.mark.parametrize(
    ("name", "says"), [("x.gguf", "is GGUF, llama.cpp's file format"), ("config.json", "is a file;")]
)
def test_a_file_is_no_folder(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=re.escape(says)):
        selected(request(hardware="h200", model=str(tmp_path / name)))


def test_a_folder_that_is_not_here_is_refused_where_vllm_would_start_only() -> None:
    """`explain` and `manifests` plan for other machines and for containers."""
    named = request(hardware="h200", model="flash=/nope", **OFF)
    assert resolved(named).choices["checkpoint"] == Setting("not read", "there is no folder /nope here")
    with pytest.raises(ConfigError, match=r"^model flash: there is no folder /nope here; correct the path") as caught:
        resolved(dataclasses.replace(named, here=True))
    assert "--skip model-files" in str(caught.value)


def test_weights_in_an_object_store_are_served_as_the_model_that_is_named() -> None:
    assert (
        resolved(request(hardware="h200", model="flash=s3://bucket/model")).flags["model"].value == "s3://bucket/model"
    )


@pytest.mark.parametrize("where", ["flash", "=x", "a/b/c"])
def test_what_is_neither_a_path_nor_a_repository_is_refused_everywhere(where: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no folder {where} here; correct the path"):
        resolved(request(hardware="h200", model=f"flash={where}", **OFF))


def test_gguf_beside_the_original_config_is_no_model(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path, checkpoints.config(), None)
    (folder / "x.gguf").write_bytes(b"GGUF")
    for words, says in (
        (str(folder), "is GGUF .llama.cpp's file format"),
        (f"flash={folder}", "is GGUF, deepseek-v4-flash"),
    ):
        with pytest.raises(ConfigError, match=says):
            resolved(request(hardware="h200", model=words, **OFF))


def test_another_architecture_is_said_to_be_one(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path, checkpoints.config(architectures=["DeepseekV3ForCausalLM"]), None)
    with pytest.raises(ConfigError, match=r"is DeepseekV3ForCausalLM; only DeepSeek-V4 and V4\.1 are served here\.$"):
        selected(request(hardware="h200", model=str(folder)))


def test_quantized_experts_without_a_quantization_config_are_not_bf16(tmp_path: Path) -> None:
    stored = checkpoints.tensors(43, "mxfp4", "mtp", "mxfp4")
    folder = checkpoints.write(tmp_path, checkpoints.config(quantization_config=None), stored)
    with pytest.raises(
        ConfigError, match="does not give the type that they have; needed: quantization_config in config"
    ):
        resolved(request(hardware="h200", model=str(folder), **OFF))


def test_a_damaged_config_is_refused_with_a_name_as_without(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path, checkpoints.config(num_hidden_layers="43"), None)
    for words in (f"flash={folder}", str(folder)):
        with pytest.raises(ConfigError, match='config.json is damaged: num_hidden_layers = "43"; fetch the original'):
            resolved(request(hardware="h200", model=words, **OFF))


@pytest.mark.parametrize(
    ("repository", "proposed"),
    [
        ("deepseek-ai/DeepSeek-V4-Flash-Next", True),
        ("deepseek-ai/DeepSeek-V5-Flash", False),
        ("unsloth/DeepSeek-V4-Flash-GGUF", False),
    ],
)
def test_another_repository_is_not_known_and_claimed_by_no_pattern(repository: str, proposed: bool) -> None:
    with pytest.raises(ConfigError, match="is not known: its config.json is not in the local cache") as caught:
        selected(request(hardware="h200", model=repository))
    assert ("did you mean deepseek-ai/DeepSeek-V4-Flash?" in str(caught.value)) == proposed
    assert ("did you mean" in str(caught.value)) == proposed


def test_the_table_is_of_exact_names_and_each_belongs_to_one_model() -> None:
    own = [
        str(name).lower()
        for model in CATALOG.every_model()
        for name in [
            model.own.flags.get("model", ""),
            *model.own.repositories,
            *(one.repository for one in model.own.siblings),
        ]
        if name
    ]
    assert all(hub_files.is_repository(name) for name in own)
    assert len(own) == len(set(own))


def test_files_in_the_cache_beat_the_table(tmp_path: Path) -> None:
    repository = "deepseek-ai/DeepSeek-V4-Flash"
    operator = cached(tmp_path, repository, "flash-0731")
    found = selected(request(hardware="h200", model=repository, operator=operator))
    assert (found.model.name, found.drafter.kind) == ("flash", "dspark")
    found = selected(request(hardware="h200", model=repository, operator=cached(tmp_path / "2", repository, "w4a16")))
    assert found.model.name == "w4a16"


@pytest.mark.parametrize(
    ("given", "layout", "says"),
    [
        ("nvfp4", "flash-nvfp4", "deepseek-v4-flash, modelopt-nvfp4, an MTP head in fp8-mxfp4"),
        ("flash", "bf16", "BF16, deepseek-v4-flash, BF16"),
        ("flash", "awq", "AWQ, deepseek-v4-flash, awq, no drafter"),
        ("flash", "flash-base", "deepseek-v4-flash, fp8"),
    ],
)
def test_a_name_that_the_files_contradict_is_refused_unless_it_is_skipped(
    tmp_path: Path, given: str, layout: str, says: str
) -> None:
    named: dict[str, Any] = {"hardware": "h200", "model": f"{given}={LAYOUTS[layout](tmp_path)}", **OFF}
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        resolved(request(**named))
    assert "--skip model-files" in str(caught.value)
    plan = resolved(request(**named, skip=("model-files",)))
    assert says in plan.choices["skip model-files"].origin


def test_the_table_contradicts_a_name_as_files_do() -> None:
    with pytest.raises(ConfigError, match="--skip model-files"):
        resolved(request(hardware="h200", model="flash=deepseek-ai/DeepSeek-V4.1-Flash", **OFF))


def test_a_field_that_vllm_would_misread_is_named(tmp_path: Path) -> None:
    folder = LAYOUTS["flash-base-without-field"](tmp_path)
    with pytest.raises(ConfigError, match='needed: expert_dtype "fp8" in config.json'):
        resolved(request(hardware="h200", model=str(folder), tensor_parallel_size=4))


@pytest.mark.parametrize("layout", ["awq", "gptq", "autoround", "exl3", "gguf", "ascend", "w4a8"])
def test_a_quantization_without_a_model_is_named_with_what_would_serve(tmp_path: Path, layout: str) -> None:
    with pytest.raises(ConfigError, match=r"for which there is no model here; .*vLLM 0\.32\.0.* What would serve: "):
        selected(request(hardware="h200", model=str(LAYOUTS[layout](tmp_path))))


SERVED = {
    "flash": "mtp 1", "flash-0731": "dspark 5", "flash-base": "mtp 1", "flash-vision": "dspark 5", "flash-nvfp4": "mtp 1",
    "flash-0731-nvfp4": "dspark 5", "nvfp4": "mtp 2", "nvfp4-undrafted": "", "w4a16": "mtp 1", "w4a16-undrafted": "",
    "acti": "mtp 1", "pro": "mtp 1", "pro-0813": "dspark 5", "pro-nvfp4": "mtp 1", "pro-0813-nvfp4": "dspark 5",
    "v41-flash": "dspark 5", "v41-flash-nvfp4": "dspark 5",
}  # fmt: skip
"""How a folder of each published layout is drafted on B300; every other layout is named and refused."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_of_every_published_layout_gets_its_plan_or_its_name(tmp_path: Path, layout: str) -> None:
    wanted = request(hardware="b300", model=str(LAYOUTS[layout](tmp_path)), tensor_parallel_size=8)
    if layout not in SERVED:
        with pytest.raises(ConfigError) as caught:
            resolved(wanted)
        assert re.search("What would serve: |needed: expert_dtype", str(caught.value))
        return
    plan = resolved(wanted)
    drafted = f"{plan.value('speculative-config.method')} {plan.draft_tokens}" if plan.draft_tokens else ""
    assert (plan.choices["model-name"].value, drafted) == (layout.removesuffix("-undrafted"), SERVED[layout])


def test_a_folder_without_a_drafter_is_its_model_and_does_not_take_its_repositorys_name(tmp_path: Path) -> None:
    folder = LAYOUTS["w4a16-undrafted"](tmp_path)
    plan = resolved(request(hardware="h200", model=str(folder), **OFF))
    assert plan.choices["model-name"].value == "w4a16"
    assert plan.flags["served-model-name"].value == ["deepseek-v4-flash"]


def test_a_skipped_checks_name_is_known() -> None:
    assert "model-files" in constraints.BUILT_IN


# The Hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    folder = LAYOUTS["flash-0731"](tmp_path / "on the hub")

    class Files(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            known = self.path.startswith("/some/one/resolve/main/")
            self.send_response(200 if known else 404)
            self.end_headers()
            if known:
                self.wfile.write((folder / name).read_bytes())

    with http_servers() as start:
        yield start(Files)


def online(model: str, **operator: str) -> Any:
    asked = request(hardware="h200", model=model, operator={"HF_HOME": "/nowhere", **operator})
    return dataclasses.replace(asked, online=True)


def test_the_hubs_config_and_index_identify_a_repository(hub: str) -> None:
    found = selected(online("some/one", HF_ENDPOINT=hub))
    assert (found.model.name, found.drafter.kind, found.drafter.layers) == ("flash-0731", "dspark", 3)
    stored = checkpoints.tensors(43, "mxfp4", "dspark", "mxfp4")
    assert found.weights_gib == checkpoints.size(stored) / (1 << 30)
    assert found.reasons["checkpoint"].origin == "config.json and index on the Hub"


def test_without_online_the_hub_is_not_asked(hub: str) -> None:
    asked = dataclasses.replace(online("some/one", HF_ENDPOINT=hub), online=False)
    with pytest.raises(ConfigError, match="`dsv4 explain --online`"):
        selected(asked)


@pytest.mark.parametrize(
    ("operator", "says"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, r"the Hub cannot be reached \(ConnectError\)"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "x y"}, "Hub"),
    ],
)
def test_a_hub_that_does_not_answer_is_a_note_and_the_table_counts(operator: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        selected(online("some/one", **operator))
    found = selected(online("nvidia/DeepSeek-V4-Flash-NVFP4", **operator))
    assert found.model.name == "flash-nvfp4"
    assert re.search(says, found.reasons["checkpoint"].origin)


def test_a_repository_that_the_hub_does_not_have_is_said_so(hub: str) -> None:
    with pytest.raises(ConfigError, match="no config.json on the Hub, or is private"):
        selected(online("other/one", HF_ENDPOINT=hub))


@pytest.mark.parametrize(
    ("status", "code", "body", "says"),
    [
        (403, "", b"blocked", "answered with status 403, as a proxy or a firewall does"),
        (407, "", b"", "answered with status 407, as a proxy or a firewall does"),
        (403, "GatedRepo", b"", "it is gated on the Hub: accept its terms there, and set HF_TOKEN"),
        (404, "RevisionNotFound", b"", "it has no revision main on the Hub"),
        (401, "RepoNotFound", b"", "it has no config.json on the Hub, or is private"),
        (500, "", b"", "answered with status 500"),
        (
            200,
            "",
            b"<html>sign in</html>",
            "answered with something else than a config.json, as a proxy or a login page",
        ),
        (200, "", b'{"architectures": 7}', "config.json is damaged: architectures = 7; fetch the original config.json"),
    ],
)
def test_what_the_hub_or_a_proxy_answers_is_told_apart(status: int, code: str, body: bytes, says: str) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.end_headers()
            self.wfile.write(body)

    with http_servers() as start:
        answer = hub_files.online("some/one", {"HF_ENDPOINT": start(Answer)})
    assert isinstance(answer, str)
    assert says in answer
    assert ("private" in says) == ("private" in answer)


def test_a_slow_hub_ends_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(1)  # never comes

    monkeypatch.setattr(hub_files, "SECONDS", 0.1)
    with http_servers() as start:
        answer = hub_files.online("some/one", {"HF_ENDPOINT": start(Silent)})
    assert isinstance(answer, str)
    assert "0.1 s" in answer or "ReadTimeout" in answer


@pytest.mark.parametrize("text", ["/etc/passwd", "../a/b", "a/b/c", "a", "a/", "a b/c", "x/" + "y" * 99])
def test_a_path_is_no_repository(text: str) -> None:
    assert not hub_files.is_repository(text)


def test_a_cache_that_is_damaged_holds_nothing(tmp_path: Path) -> None:
    cached(tmp_path, "some/one", "flash")
    place = tmp_path / "hub/models--some--one"
    assert hub_files.cached_folder("some/one", tmp_path / "hub")
    for broken in ("", "../../../etc", "0" * 40):
        (place / "refs/main").write_text(broken)
        assert hub_files.cached_folder("some/one", tmp_path / "hub") is None


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"dspark_block_size": 999}, "dspark_block_size = 999"),
        ({"dspark_target_layer_ids": [99]}, r"dspark_target_layer_ids = \[99\]"),
        (
            {"dspark_markov_rank": -1, "dspark_noise_token_id": "x"},
            'dspark_noise_token_id = "x", dspark_markov_rank = -1',
        ),
    ],
)
def test_a_drafter_that_vllm_could_not_build_is_refused_unless_nothing_drafts(
    tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    folder = LAYOUTS["flash-0731"](tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changed), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{says}; fetch the original config.json, or set NUM_SPECULATIVE_TOKENS=0"):
        resolved(request(model=str(folder), hardware="b300"))
    resolved(request(model=str(folder), hardware="b300", **OFF))


def test_what_is_a_guess_of_a_repository_is_told_until_its_files_are_read() -> None:
    red_hat = selected(request(model="RedHatAI/DeepSeek-V4-Flash-0731-NVFP4", hardware="b300"))
    assert "its files have not been read (--online)" in red_hat.reasons["checkpoint"].origin
    other = selected(request(model="RedHatAI/DeepSeek-V4-Flash-NVFP4-FP8", hardware="b300"))
    assert "guess" not in other.reasons["checkpoint"].origin
