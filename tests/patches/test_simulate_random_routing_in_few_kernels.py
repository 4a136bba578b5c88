"""A strategy of simulated routing that draws one expert for each token: as random as uniform_random, in three operations."""

import os
from typing import Any
from unittest.mock import patch

STRATEGY = "uniform_spread"
EXPERTS, TOP_K = 256, 6  # of DeepSeek-V4-Flash


def routed(tokens, experts=EXPERTS, top_k=TOP_K, *, strategy=STRATEGY, device="cpu", dtype=None):
    import torch
    from vllm.model_executor.layers.fused_moe.router.routing_simulator_router import RoutingSimulator

    hidden, logits = torch.zeros(tokens, 8, device=device), torch.zeros(tokens, experts, device=device)
    return RoutingSimulator.simulate_routing(hidden, logits, strategy, top_k, dtype)


def fresh() -> Any:
    """A strategy that has not been asked before."""
    from vllm.model_executor.layers.fused_moe.router.routing_simulator_router import RoutingSimulator

    return type(RoutingSimulator._routing_strategies[STRATEGY])()


def check_each_token_has_different_experts_that_exist():
    for experts, top_k in ((256, 6), (384, 6), (250, 6), (11, 6), (7, 6), (6, 6), (5, 1)):
        weights, ids = routed(5000, experts, top_k)  # enough that each has one: all but 4e-33
        assert ids.shape == weights.shape == (5000, top_k)
        assert all(len(set(one)) == top_k for one in ids.tolist()), (experts, top_k)
        assert set(ids.flatten().tolist()) == set(range(experts))
        assert ids.is_contiguous()


def check_each_expert_is_equally_likely_in_every_place():
    import torch

    for experts, top_k in ((256, 6), (250, 6), (11, 6)):
        torch.manual_seed(0)
        tokens = 400 * experts
        _, ids = routed(tokens, experts, top_k)
        for column in ids.unbind(1):
            counts = torch.bincount(column.long(), minlength=experts).double()
            expected = tokens / experts
            squares = ((counts - expected) ** 2 / expected).sum().item()
            spread = (2 * (experts - 1)) ** 0.5  # of a chi-square with so many degrees of freedom
            assert abs(squares - (experts - 1)) < 5 * spread, (experts, squares)


def check_a_step_reads_as_many_experts_as_with_uniform_random():
    import torch

    torch.manual_seed(0)
    for tokens in (1, 2, 8, 32, 128):
        expected = EXPERTS * (1 - (1 - TOP_K / EXPERTS) ** tokens)
        for strategy in (STRATEGY, "uniform_random"):
            found = [len(set(routed(tokens, strategy=strategy)[1].flatten().tolist())) for _ in range(400)]
            mean = torch.tensor(found, dtype=torch.double)
            tolerance = 5 * mean.std().item() / len(found) ** 0.5 + 1e-9
            assert abs(mean.mean().item() - expected) < tolerance, (strategy, tokens, mean.mean().item(), expected)


def check_tokens_choose_independently():
    """Every pair of first experts of two neighbours is equally likely."""
    import torch

    torch.manual_seed(0)
    _, ids = routed(200_000, experts=16, top_k=2)
    pairs = torch.bincount((ids[:-1, 0] * 16 + ids[1:, 0]).long(), minlength=256).double()
    expected = pairs.sum() / 256
    squares = ((pairs - expected) ** 2 / expected).sum().item()
    assert abs(squares - 255) < 5 * (2 * 255) ** 0.5


def check_each_call_draws_anew_from_torchs_generator():
    """A CUDA graph advances that generator with each replay."""
    import torch

    torch.manual_seed(7)
    first, second = (routed(64)[1] for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(7)
    assert torch.equal(first, routed(64)[1])


def check_weights_and_types_are_those_of_the_routers():
    import torch

    for asked, given in ((None, torch.int32), *((one, one) for one in (torch.int32, torch.int64, torch.uint32))):
        weights, ids = routed(3, dtype=asked)
        assert ids.dtype == given
        assert torch.equal(weights, torch.ones(3, TOP_K))
        assert weights.dtype == torch.float32
    assert routed(0)[1].shape == (0, TOP_K)


def check_a_caller_may_write_into_what_it_got():
    weights, ids = routed(4)
    weights.zero_()
    ids.fill_(-1)
    again, fresh = routed(4)
    assert bool((again == 1).all())
    assert bool((fresh >= 0).all())


def check_it_takes_three_operations_after_the_first_call():
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Seen(TorchDispatchMode):
        names = ()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.names = (*self.names, function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    hidden, logits = torch.zeros(2, 8), torch.zeros(2, EXPERTS)
    from vllm.model_executor.layers.fused_moe.router.routing_simulator_router import RoutingSimulator

    seen = {}
    for strategy in (STRATEGY, "uniform_random"):
        RoutingSimulator.simulate_routing(hidden, logits, strategy, TOP_K, torch.int32)
        with Seen() as mode:
            RoutingSimulator.simulate_routing(hidden, logits, strategy, TOP_K, torch.int32)
        seen[strategy] = sorted(mode.names)
    assert seen[STRATEGY] == ["index_select", "ones", "randint"]
    assert {"rand", "topk"} < set(seen["uniform_random"])


def check_nothing_waits_for_the_values():
    """On the device meta there are none, so reading one on the host would fail."""
    import torch

    weights, ids = routed(5, device="meta", dtype=torch.int64)
    assert (ids.shape, ids.dtype, ids.device.type) == ((5, TOP_K), torch.int64, "meta")
    assert weights.shape == (5, TOP_K)


def check_a_table_made_during_a_capture_stays_in_its_graph():
    """Its values are there only after a replay of that graph, so another one may not read it."""
    from unittest.mock import MagicMock

    import torch

    gpu, cpu = MagicMock(type="cuda"), torch.device("cpu")
    arange = torch.arange
    for capturing, kept in ((True, 0), (False, 1)):
        strategy = fresh()
        with (
            patch.object(torch.cuda, "is_current_stream_capturing", lambda found=capturing: found),
            patch.object(torch, "arange", lambda size, device: arange(size, device=cpu)),
        ):
            table = strategy._table(EXPERTS, TOP_K, gpu, torch.int32)
        assert table[255].tolist() == [255, 41, 83, 125, 167, 209]
        assert len(strategy._tables) == kept


def check_it_compiles():
    """vLLM compiles the router too where there is no custom operator around it, as on CPUs."""
    import torch

    strategy = fresh()
    hidden, logits = torch.zeros(9, 8), torch.zeros(9, EXPERTS)
    compiled = torch.compile(strategy.route_tokens, backend="eager", fullgraph=True)
    _, ids = compiled(hidden, logits, TOP_K)
    assert all(len(set(one)) == TOP_K for one in ids.tolist())
    assert not strategy._tables


def check_the_router_of_a_rank_chooses_among_all_experts():
    """With expert parallelism each rank has some; the numbers are of all, and one rank's are found in its map."""
    import torch
    from vllm.model_executor.layers.fused_moe.router.router_factory import create_fused_moe_router

    with patch.dict(os.environ, {"VLLM_MOE_ROUTING_SIMULATION_STRATEGY": STRATEGY}):
        router = create_fused_moe_router(top_k=TOP_K, global_num_experts=EXPERTS)
        _, ids = router.select_experts(torch.zeros(4096, 8), torch.zeros(4096, EXPERTS))
    assert set(ids.flatten().tolist()) == set(range(EXPERTS))
    for ranks in (2, 8):
        ours = EXPERTS // ranks
        mine = torch.full((EXPERTS,), -1)
        mine[-ours:] = torch.arange(ours)
        share = (mine[ids.long()] >= 0).float().mean().item()
        assert abs(share - 1 / ranks) < 0.02


def check_more_experts_than_there_are_cannot_be_chosen():
    try:
        routed(1, experts=5, top_k=6)
    except ValueError as error:
        if "6 of 5" not in str(error):
            raise
    else:
        raise AssertionError("no error")


UNKNOWN = f"Unknown routing strategy: {STRATEGY}"


def test_each_token_has_different_experts(needs_patch):
    needs_patch("check_each_token_has_different_experts_that_exist", UNKNOWN)


def test_each_expert_is_equally_likely(needs_patch):
    needs_patch("check_each_expert_is_equally_likely_in_every_place", UNKNOWN)


def test_a_step_reads_as_many_experts_as_with_uniform_random(needs_patch):
    needs_patch("check_a_step_reads_as_many_experts_as_with_uniform_random", UNKNOWN)


def test_tokens_choose_independently(needs_patch):
    needs_patch("check_tokens_choose_independently", UNKNOWN)


def test_each_call_draws_anew(needs_patch):
    needs_patch("check_each_call_draws_anew_from_torchs_generator", UNKNOWN)


def test_weights_and_types_are_those_of_the_routers(needs_patch):
    needs_patch("check_weights_and_types_are_those_of_the_routers", UNKNOWN)


def test_a_caller_may_write_into_what_it_got(needs_patch):
    needs_patch("check_a_caller_may_write_into_what_it_got", UNKNOWN)


def test_it_takes_three_operations(needs_patch):
    needs_patch("check_it_takes_three_operations_after_the_first_call", UNKNOWN)


def test_nothing_waits_for_the_values(needs_patch):
    needs_patch("check_nothing_waits_for_the_values", UNKNOWN)


def test_a_table_made_during_a_capture_stays_in_its_graph(needs_patch):
    needs_patch("check_a_table_made_during_a_capture_stays_in_its_graph", f"KeyError: '{STRATEGY}'")


def test_it_compiles(needs_patch):
    needs_patch("check_it_compiles", f"KeyError: '{STRATEGY}'")


def test_the_router_of_a_rank_chooses_among_all_experts(needs_patch):
    needs_patch("check_the_router_of_a_rank_chooses_among_all_experts", UNKNOWN)


def test_more_experts_than_there_are_cannot_be_chosen(needs_patch):
    needs_patch("check_more_experts_than_there_are_cannot_be_chosen", UNKNOWN)
