"""The speculative config of a plan, from the drafter that the checkpoint has."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.checkpoint.identity import Drafter
from dsv4_serve.entrypoint.draft_schedule import Load
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.plan import Plan
from dsv4_serve.entrypoint.resolve import measured_drafts
from dsv4_serve.entrypoint.resolve.layers import resolve
from tests.support.plans import request, resolved, selected

METHOD, TOKENS = "speculative-config.method", "speculative-config.num_speculative_tokens"
SCHEDULE = "speculative-config.num_speculative_tokens_per_batch_size"
SAMPLING = "speculative-config.draft_sample_method"
KINDS = {
    "mtp": Drafter("mtp", "fp8-mxfp4", 1),
    "dspark": Drafter("dspark", "fp8-mxfp4", 3, 5),
    "none": Drafter(),
}


def plan(kind: str, **requested: Any) -> Plan:
    """A plan for Flash's files with another drafter."""
    wanted = request(hardware="h200", profile="128k", model="flash", **requested)
    chosen = dataclasses.replace(selected(wanted), drafter=KINDS[kind])
    return resolve(chosen, wanted)


def drafting(plan: Plan) -> dict[str, Any]:
    return {name.partition(".")[2]: s.value for name, s in plan.flags.items() if name.startswith("speculative-config.")}


def test_an_mtp_head_drafts_one_token_and_the_origin_says_why() -> None:
    found = plan("mtp")
    assert drafting(found) == {"method": "mtp", "num_speculative_tokens": 1}
    assert found.flags[METHOD].origin == "drafter of flash: an MTP head"


def test_a_dspark_drafter_drafts_its_block() -> None:
    found = plan("dspark")
    assert drafting(found) == {
        "method": "dspark",
        "num_speculative_tokens": 5,
        "draft_sample_method": "probabilistic",
    }
    assert found.flags[TOKENS].origin == "drafter of flash: DSpark, 3 layers, blocks of 5 tokens"
    assert '"method":"dspark"' in found.command()


def test_without_a_drafter_the_model_is_served_and_one_line_says_what_is_lost() -> None:
    found = plan("none")
    assert drafting(found) == {}
    assert found.draft_tokens == 0
    assert "speculative" not in found.command()
    assert found.choices["drafter"].value == "none"
    assert found.choices["drafter"].origin.startswith("no drafter in the checkpoint, so every token takes a step")


def test_without_a_drafter_what_a_file_sets_for_one_is_left_out() -> None:
    wanted = request(hardware="h200", profile="128k", model="nvfp4")  # its file names the drafter's MoE backend
    assert drafting(resolve(dataclasses.replace(selected(wanted), drafter=Drafter()), wanted)) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_no_draft_tokens_always_serve(kind: str) -> None:
    found = plan(kind, **{TOKENS: 0, METHOD: "dspark" if kind == "mtp" else "mtp"})
    assert found.draft_tokens == 0
    assert "speculative" not in found.command()
    assert plan(kind, **{TOKENS: 0}).draft_tokens == 0


@pytest.mark.parametrize(
    ("kind", "requested", "says"),
    [
        ("mtp", {METHOD: "dspark"}, "speculative-config.method is dspark, but its drafter is an MTP head; leave"),
        ("dspark", {METHOD: "mtp"}, "set it to dspark, or set NUM_SPECULATIVE_TOKENS=0"),
        ("dspark", {METHOD: "deepseek_mtp"}, "speculative-config.method is deepseek_mtp"),
        ("none", {METHOD: "mtp"}, "speculative-config.method is mtp, but the checkpoint has no drafter"),
        ("none", {TOKENS: 2}, "2 draft tokens are requested, but the checkpoint has no drafter; leave"),
        ("none", {TOKENS: 1}, "1 draft token is requested, but the checkpoint has no drafter; leave"),
    ],
)
def test_what_the_drafter_is_not_made_for_is_refused_with_what_to_write(
    kind: str, requested: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match="--skip drafter-method") as caught:
        plan(kind, **requested)
    assert says in str(caught.value)
    assert plan(kind, **requested, skip=("drafter-method",)).draft_tokens


@pytest.mark.parametrize("kind", ["mtp", "none"])
def test_the_old_name_of_mtp_and_other_methods_are_no_contradiction(kind: str) -> None:
    ngram = {METHOD: "ngram", TOKENS: 3, "speculative-config.prompt_lookup_max": 3}
    assert drafting(plan(kind, **ngram))["method"] == "ngram"
    assert drafting(plan("mtp", **{METHOD: "deepseek_mtp"}))["method"] == "deepseek_mtp"


def test_another_method_does_not_inherit_how_dspark_samples() -> None:
    ngram = {METHOD: "ngram", "speculative-config.prompt_lookup_max": 3}
    assert SAMPLING.partition(".")[2] not in drafting(plan("dspark", **ngram))


@pytest.mark.parametrize("kind", ["mtp", "dspark"])
def test_a_draft_model_of_ones_own_decides_the_method(kind: str) -> None:
    found = drafting(plan(kind, **{"speculative-config.model": "some/one", TOKENS: 3}))
    assert found == {"model": "some/one", "num_speculative_tokens": 3}


@pytest.mark.parametrize("method", ["eagle", "eagle3", "dflash", "draft_model"])
def test_a_method_that_needs_a_model_is_refused_without_one(method: str) -> None:
    with pytest.raises(
        ConfigError, match=f"method {method} needs a draft model of its own; needed: spec.*drafter-method"
    ):
        plan("mtp", **{METHOD: method})
    assert plan("mtp", **{METHOD: method, "speculative-config.model": "some/one"}).draft_tokens == 1


def test_suffix_decoding_has_a_length_of_its_own() -> None:
    assert drafting(plan("dspark", **{METHOD: "suffix"})) == {"method": "suffix"}
    assert drafting(plan("dspark", **{METHOD: "suffix", TOKENS: 8}))["num_speculative_tokens"] == 8


def test_names_of_other_models_for_mtp_are_mtp() -> None:
    with pytest.raises(ConfigError, match="speculative-config.method is glm5_next_mtp, but its drafter is DSpark"):
        plan("dspark", **{METHOD: "glm5_next_mtp", TOKENS: 1})


def test_dspark_drafts_no_more_than_its_block() -> None:
    assert plan("dspark", **{TOKENS: 3}).draft_tokens == 3
    with pytest.raises(ConfigError, match="blocks of 5.*NUM_SPECULATIVE_TOKENS=5 or fewer.*--skip dspark-block"):
        plan("dspark", **{TOKENS: 7})


def test_mtp_may_draft_more_than_one_token() -> None:
    assert plan("mtp", **{TOKENS: 3}).draft_tokens == 3


def test_mtp_drafts_no_more_than_anybody_published() -> None:
    with pytest.raises(ConfigError, match="100 draft tokens, but its MTP head drafts one.*NUM_SPECULATIVE_TOKENS=3 or"):
        plan("mtp", **{TOKENS: 100})
    assert plan("mtp", **{TOKENS: 4}, skip=("mtp-depth",)).draft_tokens == 4
    wanted = request(hardware="h200", profile="128k", model="flash", **{TOKENS: 5})
    chosen = dataclasses.replace(selected(wanted), drafter=Drafter("mtp", "fp8-mxfp4", 5))
    assert resolve(chosen, wanted).draft_tokens == 5


def test_a_schedule_of_ones_own_may_not_ask_for_more_than_is_drafted() -> None:
    with pytest.raises(ConfigError, match="requests 5 draft.*num_speculative_tokens is 1.*; request 1 or.*k-by-load"):
        plan("mtp", **{SCHEDULE: [[1, 4, 5], [5, 8, 1]]})
    with pytest.raises(ConfigError, match="set NUM_SPECULATIVE_TOKENS=3, or request 1 or fewer"):
        plan("mtp", **{SCHEDULE: [[1, 4, 3], [5, 8, 1]]})
    assert plan("dspark", **{SCHEDULE: [[1, 4, 5], [5, 8, 1]]}).draft_tokens == 5


def shown(hardware: str, model: str, **requested: Any) -> tuple[Plan, Any]:
    """The plan of `shared`, and what `explain` shows of its draft tokens."""
    found = resolved(request(hardware=hardware, profile="shared", model=model, **requested))
    return found, found.choices["draft tokens"]


def test_a_profiles_schedule_is_capped_and_explain_says_so() -> None:
    found, tokens = shown("b300", "flash")
    assert found.flags[SCHEDULE].value == [[1, 4, 5], [5, 16, 3], [17, 64, 0]]
    assert tokens.value == "1 for 1 to 16 requests, none for 17 to 64"
    assert tokens.origin == (
        "shared.toml [flags]; the schedule's 5 is more than num_speculative_tokens; unmeasured on b300"
    )


@pytest.mark.parametrize(
    ("model", "requested", "tokens", "measured"),
    [
        ("flash-0731", {}, 5, "16.95 ms a token at 64 requests, 30.84 without drafts: flash-0731 and flash, one GPU's"),
        ("flash-0731", {TOKENS: 3}, 3, "18.02 ms a token at 64 requests, 30.84 without drafts"),
        ("flash-0731", {TOKENS: 4}, 4, "unmeasured on h200"),
        ("flash", {}, 1, "20.83 ms a token at 64 requests, 30.84 without drafts: flash, one GPU's share of two; dummy"),
        ("w4a16", {}, 1, "20.83 ms a token at 64 requests, 30.84 without drafts: flash, one GPU's share of two"),
        ("flash", {TOKENS: 3}, 3, "14.86 ms a token at 64 requests, 30.84 without drafts"),
    ],
)
def test_where_it_was_measured_all_tokens_are_drafted_at_every_load_and_explain_says_why(
    model: str, requested: dict[str, Any], tokens: int, measured: str
) -> None:
    found, drafts = shown("h200", model, **requested)
    assert SCHEDULE not in found.flags
    assert found.draft_tokens == tokens
    assert drafts.value == f"{tokens} for 1 to 64 requests"
    assert drafts.origin.startswith("shared.toml [[when]] hardware = h200 [flags]; ")
    assert measured in drafts.origin
    assert ("-none-2026" in drafts.origin) == ("unmeasured" not in measured)


def test_what_was_measured_is_not_inherited_by_other_hardware() -> None:
    found, drafts = shown("h200-nvl", "flash-0731")
    assert SCHEDULE in found.flags
    assert drafts.origin == "shared.toml [flags]; unmeasured on h200-nvl"


@pytest.mark.parametrize(
    ("load", "says"),
    [(8, "; 5.00 ms a token at 8 requests, 9.00 without drafts: flash, mine, 2 tokens a step (a, b)"), (4, "")],
)
def test_a_hardware_file_of_ones_own_is_quoted_where_its_entries_share_a_load(
    load: int, says: str, tmp_path: Path
) -> None:
    entry = '[[k-by-load]]\nmodel = "flash"\ndrafter = "{}"\ntokens = {}\ntpot-ms = [[{}, {}]]\n'
    entry += 'conditions = "{}"\nsource = "{}"\n'
    (tmp_path / "hardware").mkdir()
    own = 'extends = "b300"\n' + entry.format("mtp", 1, 8, 5.0, "mine, 2 tokens a step", "a")
    (tmp_path / "hardware/mine.toml").write_text(own + entry.format("none", 0, load, 9.0, "mine", "b"))
    hardware = Catalog([tmp_path]).hardware("mine", "test")
    assert measured_drafts.clause(hardware, "mtp", [Load(1, 16, 1), Load(17, 64, 1)]) == says


def test_a_profile_of_ones_own_may_draft_fewer_than_the_one_that_it_extends(tmp_path: Path) -> None:
    own = f'extends = "shared"\n[flags.speculative-config]\n{SCHEDULE.partition(".")[2]} = [[1, 16, 5], [17, 64, 3]]\n'
    (tmp_path / "mine.toml").write_text(own, encoding="utf-8")
    found = resolved(request(hardware="h200", profile="mine", model="flash-0731"), Catalog([tmp_path]))
    assert found.flags[SCHEDULE].value == [[1, 16, 5], [17, 64, 3]]
    tokens = found.choices["draft tokens"]
    assert tokens.value == "5 for 1 to 16 requests, 3 for 17 to 64"
    assert tokens.origin.startswith(f"{tmp_path}/mine.toml [flags]; 18.02 ms a token at 64 requests, 30.84 without")


def test_a_profile_that_extends_another_has_its_schedule_and_one_of_fewer_tokens_stays(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "shared"\n', encoding="utf-8")
    found = resolved(request(hardware="b300", profile="mine", model="flash"), Catalog([tmp_path]))
    assert found.flags[SCHEDULE].value == [[1, 4, 5], [5, 16, 3], [17, 64, 0]]
    fewer = f'extends = "shared"\n[flags.speculative-config]\n{SCHEDULE.partition(".")[2]} = [[1, 64, 3]]\n'
    (tmp_path / "fewer.toml").write_text(fewer, encoding="utf-8")
    found = resolved(request(hardware="h200", profile="fewer", model="flash-0731"), Catalog([tmp_path]))
    assert found.flags[SCHEDULE].value == [[1, 64, 3]]
    assert found.choices["draft tokens"].value == "3 for 1 to 64 requests"


def test_nothing_is_quoted_for_a_highest_load_without_drafts() -> None:
    hardware = Catalog([]).hardware("h200", "test")
    assert measured_drafts.clause(hardware, "dspark", [Load(1, 16, 5), Load(17, 64, 0)]) == ""
    assert measured_drafts.clause(hardware, "dspark", [Load(1, 16, 4), Load(17, 64, 0)]) == "; unmeasured on h200"


def test_a_schedule_of_ones_own_stays_where_the_profile_s_is_left_out() -> None:
    found, drafts = shown("h200", "flash-0731", **{SCHEDULE: [[1, 64, 5]]})
    assert found.flags[SCHEDULE].value == [[1, 64, 5]]
    assert (drafts.value, drafts.origin) == ("5 for 1 to 64 requests", "test")
    with pytest.raises(ConfigError, match="requests 5 draft.*num_speculative_tokens is 1.*k-by-load"):
        shown("b300", "flash", **{SCHEDULE: [[1, 4, 5], [5, 16, 3], [17, 64, 0]]})


def test_k_by_load_is_shown_as_far_as_it_applies() -> None:
    found = plan("dspark", **{SCHEDULE: [[1, 2, 5], [3, 64, 0]]})
    assert found.choices["draft tokens"].value == "5 for 1 to 2 requests, none for 3 to 8"
    assert '"num_speculative_tokens_per_batch_size":[[1,2,5],[3,64,0]]' in found.command()
    assert "draft tokens" not in plan("dspark").choices


@pytest.mark.parametrize(
    ("requested", "says"),
    [
        ({SCHEDULE: [[2, 4, 1]]}, "the range 2 to 4 is the first one, and has to begin at 1"),
        ({SCHEDULE: [[1, 8, 0]]}, "gives a single request no draft tokens"),
        ({SCHEDULE: [[1, 8, 1]], "data_parallel_size": 2}, "ignores num_speculative_tokens_per_batch_size"),
    ],
)
def test_a_schedule_that_vllm_would_refuse_or_ignore_is_refused(requested: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match="--skip k-by-load") as caught:
        plan("mtp", **requested)
    assert says in str(caught.value)


def test_a_schedule_is_no_matter_without_draft_tokens() -> None:
    assert plan("mtp", **{SCHEDULE: [[2, 4, 1]], TOKENS: 0}).draft_tokens == 0


def test_a_profile_s_schedule_is_left_out_where_vllm_ignores_it_and_a_user_s_is_refused() -> None:
    """Data parallel ranks draft the same number of tokens, whatever the load (vllm/config/vllm.py)."""
    plan = resolved(request(profile="shared", hardware="b300", model="flash-0731", data_parallel_size=2))
    assert SCHEDULE not in plan.flags
    assert plan.choices["draft tokens"].value == 5
    assert "vLLM ignores with data parallelism" in plan.choices["draft tokens"].origin
    with pytest.raises(ConfigError, match="leave it out, or serve one replica for each rank"):
        resolved(request(hardware="h200", model="flash", data_parallel_size=2, **{SCHEDULE: [[1, 4, 1]]}))
