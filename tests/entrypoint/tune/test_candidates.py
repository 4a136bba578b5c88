"""What is proposed for the shipped plans: only what resolves, fits, and changes something; the best prediction first."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.demo.llama import write_checkpoint
from dsv4_serve.entrypoint import replica
from dsv4_serve.entrypoint.bench.options import LoadMatrix
from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.cli.parser import parse
from dsv4_serve.entrypoint.errors import UsageError
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.plan import DRAFT_TOKENS, Setting
from dsv4_serve.entrypoint.request import Request
from dsv4_serve.entrypoint.resolve.resolution import Resolution, resolve_request
from dsv4_serve.entrypoint.tune import candidates, predict
from dsv4_serve.entrypoint.tune.candidates import TuneCandidate
from dsv4_serve.entrypoint.tune.command import Proposal, TuneContext, proposal
from dsv4_serve.entrypoint.tune.options import TuneRequest, tune_request
from dsv4_serve.entrypoint.tune.setups import Setups
from tests.entrypoint.tune.test_qualified import MACHINE, result
from tests.support.plans import request, resolved


def resolver(asked: Request, gpus: HostGpus):
    def resolve(name: str, before: Sequence[Path]) -> Resolution:
        choices = {**asked.choices, **({"profile": Setting(name, "test")} if name else {})}
        one = Request(choices, asked.skip, asked.environment, asked.command_line, asked.operator)
        return resolve_request(Catalog(list(before)), one, lambda: gpus, frozenset)

    return resolve


def proposed(
    batches: tuple[int, ...] = (1, 16),
    acceptance: Any = None,
    dummy: bool = False,
    *,
    gpus: int = 2,
    out: Path = Path("/none"),
    machine: Mapping[str, Any] | None = None,
    **asked: Any,
) -> Proposal:
    one = request(**asked)
    resolve = resolver(one, HostGpus(asked.get("hardware", "h200"), "test", gpus))
    context = TuneContext(resolve("", []), one, resolve, machine or {})
    return proposal(context, TuneRequest(LoadMatrix(batches), 60, "mine", out, without_weights=dummy), acceptance)


def names(found: Proposal) -> list[str]:
    return [one.name for one in found.candidates]


def test_the_best_prediction_comes_first_and_unknown_ones_before_losses() -> None:
    found = proposed(hardware="h200", profile="64k", model="w4a16")
    gains = [one.gain or 0.0 for one in found.candidates]
    assert gains == sorted(gains, reverse=True)
    assert names(found)[0].startswith("drafts-")
    assert {"all-reduce-nccl", "expert-parallel"} <= set(names(found))
    assert {name for name in found.left_out if name.startswith("experts-")} == {"experts-marlin", "experts-triton"}


def test_a_backend_that_was_not_qualified_here_is_left_out_with_the_command_that_does_it(tmp_path: Path) -> None:
    found = proposed(hardware="h200", profile="64k", model="w4a16")
    assert "dsv4 qualify --profile 64k --model w4a16 --moe-backend marlin" in found.left_out["experts-marlin"]
    result(tmp_path, {})
    found = proposed(hardware="h200", profile="64k", model="w4a16", out=tmp_path, machine=MACHINE)
    assert "experts-marlin" in names(found)
    assert "experts-triton" in found.left_out


def test_a_batch_is_no_larger_than_what_all_ranks_run_at_once() -> None:
    plan = resolved(request(hardware="h200", profile="64k-dp", model="w4a16"))
    most = replica.sequences(plan)
    assert most > plan.value("max-num-seqs")
    options, _ = parse(["tune", "--batch", str(most)])
    assert tune_request(options, plan).matrix.batches == (most,)
    options, _ = parse(["tune", "--batch", str(most + 1)])
    with pytest.raises(UsageError, match=f"the plan runs {most} requests at once"):
        tune_request(options, plan)


def test_without_batches_of_ones_own_all_ranks_are_loaded() -> None:
    plan = resolved(request(hardware="h200", profile="64k-dp", model="w4a16", max_num_seqs=4))
    assert replica.sequences(plan) > 4
    assert tune_request(parse(["tune"])[0], plan).matrix.batches == (1, replica.sequences(plan))


def drafted(found: Proposal) -> set[Any]:
    """The numbers of draft tokens that are proposed."""
    return {one.changes[DRAFT_TOKENS] for one in found.candidates if DRAFT_TOKENS in one.changes}


def test_an_mtp_head_drafts_no_more_than_anybody_published_and_dspark_no_more_than_its_block() -> None:
    assert drafted(proposed(hardware="h200")) == {2, 3}
    assert max(drafted(proposed(hardware="h200", model="flash-0731", profile="64k"))) < 5


def test_only_kernels_of_this_gpu_are_proposed() -> None:
    found = proposed(hardware="rtx-pro-6000", model="flash-0731-nvfp4")
    assert "not qualified" in found.left_out["experts-marlin"]
    assert "drafter's MXFP4 experts" in found.left_out["experts-cutlass"]
    assert not [name for name in (*names(found), *found.left_out) if "trtllm" in name]


def test_what_leaves_less_memory_than_the_plan_promises_is_left_out_with_the_reason() -> None:
    found = proposed(hardware="rtx-pro-6000", model="flash-0731-nvfp4")
    assert "of the promised requests would fit" in found.left_out["step-4096"]
    assert "step-1024" in names(found)


def test_what_the_request_sets_itself_is_not_varied() -> None:
    found = proposed(hardware="h200", moe_backend="marlin", max_num_batched_tokens=8192)
    assert "decides it" in found.left_out["experts-humming"]
    assert "decides it" in found.left_out["step-4096"]
    fixed = proposed(hardware="rtx-pro-6000", nccl="p2p-off")
    assert "decides it" in fixed.left_out["nccl-p2p-on"]


def test_sets_of_nccl_variables_are_tried_where_one_is_used_and_a_profile_can_name_one() -> None:
    found = proposed(hardware="rtx-pro-6000")
    assert {"nccl-p2p-on", "nccl-p2p-off-concurrent"} <= set(names(found))
    resolved = found.setups.resolution(("nccl-p2p-on",))
    assert resolved.plan.env["NCCL_P2P_LEVEL"].value == "SYS"
    assert "NCCL_P2P_DISABLE" not in resolved.plan.env
    assert resolved.plan.choices["nccl"].origin.endswith("tuning.toml: nccl")


def test_without_weights_drafts_are_tried_only_where_the_acceptance_is_stated() -> None:
    found = proposed(hardware="h200", profile="64k", dummy=True)
    assert "state it with --acceptance" in found.left_out["drafts-3"]
    assert "drafts-3" in names(proposed(hardware="h200", profile="64k", dummy=True, acceptance=(0.8,)))


def test_a_low_acceptance_makes_more_drafts_a_loss() -> None:
    lossy = proposed(hardware="h200", profile="64k", model="w4a16", acceptance=(0.1,), batches=(16,))
    assert "drafts-3" not in names(lossy)
    assert "predicted to lose" in lossy.left_out["drafts-3"]


def test_draft_tokens_by_load_are_for_many_requests() -> None:
    many = proposed(hardware="h200", model="flash-0731", profile="64k", batches=(1, 64), max_num_seqs=64)
    [by_load] = [one for one in many.candidates if one.name == "drafts-by-load"]
    assert [[1, 4, 5], [5, 16, 3], [17, 64, 0]] in by_load.changes.values()
    assert "drafts-by-load" not in names(proposed(hardware="h200", model="flash-0731", profile="64k", batches=(1, 4)))
    assert not [n for n in names(proposed(hardware="b300", profile="shared", batches=(1, 64))) if "drafts" in n]
    assert "drafts-by-load" in names(proposed(hardware="h200", profile="shared", batches=(1, 64)))  # it has no schedule


def test_graphs_for_prompts_are_tried_where_the_hardware_has_none() -> None:
    found = proposed(hardware="gb10", profile="64k", batches=(1, 4), nnodes=2, max_num_batched_tokens=8192, gpus=1)
    [graphs] = [one for one in found.candidates if one.kind == "graphs"]
    sizes = graphs.changes["cudagraph-capture-sizes"]
    assert sizes[-1] == 4096
    assert sizes == sorted(set(sizes))
    captured = found.setups.resolution((graphs.name,)).plan.flags["cudagraph-capture-sizes"]
    assert captured.value == sizes
    assert candidates.prompt_sizes(128) == [64, 80, 96, 112, 128]
    h200 = proposed(hardware="h200").setups.resolution(()).plan.value("cudagraph-capture-sizes")
    assert set(candidates.prompt_sizes(4096)) <= set(h200) | {s for s in candidates.prompt_sizes(4096) if s < 1024}


def test_no_graphs_are_tried_that_the_plan_has_or_that_leave_too_little_memory() -> None:
    longer = proposed(hardware="b300", profile="64k")
    assert [one.name for one in longer.candidates if one.kind == "graphs"] == ["graphs-8192"]
    tight = proposed(hardware="rtx-pro-6000", profile="128k", model="acti")
    assert tight.setups.resolution(()).plan.value("cudagraph-capture-sizes")[-1] < 4096
    assert "of the promised requests would fit at full length" in tight.left_out["graphs-4096"]


def test_a_cpu_is_offered_draft_tokens_and_nothing_of_gpus(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    found = proposed(profile="demo", model=f"demo={folder}", batches=(1, 4), gpus=0, hardware="cpu")
    assert {one.kind for one in found.candidates} == {"drafts"}
    assert len(found.candidates) == 3


def test_one_thing_at_a_time_and_kinds_are_combined_only_with_others() -> None:
    first = TuneCandidate("a", "drafts", {"x": 1}, "")
    assert first.clashes(TuneCandidate("b", "drafts", {"y": 1}, ""))
    assert first.clashes(TuneCandidate("b", "steps", {"x": 2}, ""))
    assert first.clashes(TuneCandidate("b", "steps", {"y": 2}, "", drops=frozenset({"x"})))
    assert not first.clashes(TuneCandidate("b", "steps", {"y": 2}, ""))


@pytest.mark.parametrize(
    ("profile", "hardware"),
    [
        *itertools.product(["128k", "524k", "64k", "throughput"], ["h200", "b300", "rtx-pro-6000"]),
        *itertools.product(["pro", "shared"], ["h200", "b300"]),
    ],
)
def test_a_candidate_of_a_shipped_profile_makes_its_change_and_keeps_the_rest(profile: str, hardware: str) -> None:
    found = proposed(hardware=hardware, profile=profile, gpus=8)
    before = found.setups.resolution(()).plan
    for one in found.candidates:
        after = found.setups.resolution((one.name,)).plan
        changes = {name: value for name, value in one.changes.items() if name != candidates.NCCL}
        assert {name: after.value(name) for name in changes} == changes
        assert (after.flags, after.env) != (before.flags, before.env)
        kept = {"max-model-len", "max-num-seqs", "gpu-memory-utilization", "model", "kv-cache-dtype"}
        assert {name: after.value(name) for name in kept} == {name: before.value(name) for name in kept}


def test_the_prediction_agrees_with_what_was_measured() -> None:
    measured = {2: 8.7, 8: 12.6, 32: 21.9}
    for rows, ms in measured.items():
        assert predict.step_ms(rows) == pytest.approx(ms, rel=0.06)
    assert predict.gain(0, 1, [1], 0.91) == pytest.approx(1.62 - 1, abs=0.12)
    assert predict.gain(1, 1, [1, 16]) == 0
    assert predict.gain(1, 3, [1], 0.0) < 0


def test_a_setup_is_a_profile_that_extends_the_plans_own(tmp_path: Path) -> None:
    result(tmp_path, {})
    found = proposed(hardware="h200", model="w4a16", out=tmp_path, machine=MACHINE)
    setups = Setups(found.setups.profile, found.setups.resolve, found.setups.candidates, tmp_path)
    name, [folder] = setups.place(("drafts-3", "experts-marlin"))
    text = (folder / f"{name}.toml").read_text()
    assert 'extends = "524k"' in text
    assert 'moe-backend = "marlin"' in text
    assert "[flags.speculative-config]\nnum_speculative_tokens = 3" in text
    assert setups.place(()) == ("524k", [])
