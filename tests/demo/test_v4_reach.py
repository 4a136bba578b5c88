"""The far key: only compressed attention finds it, and the query finds nothing else."""

import numpy as np
import pytest

from dsv4_serve.demo.deepseek_v4 import LAYOUTS, Dims, write
from dsv4_serve.demo.v4_reach import FLAGS, INDEX_DIM, ReachWeights
from dsv4_serve.demo.v4_tensors import dense
from dsv4_serve.demo.v4_text import reaching_walk
from dsv4_serve.demo.v4_weights import FLASH, HEAD_DIM, Weights, compressed_rows

SMALL = Dims(experts=8, vocab=64, ratios=(0, 4, 128))
WALK = reaching_walk(128)


def unit(x):
    return x / np.sqrt((x * x).sum(axis=-1, keepdims=True) + 1e-6)


@pytest.fixture(scope="module", params=[Dims(), FLASH], ids=["tiny", "flash"])
def weights(request):
    walk = reaching_walk(request.param.vocab)
    assert walk.reach
    return ReachWeights(request.param, walk.successors, walk.seed, walk.reach), walk.reach


def scores(weights, token, ratio):
    """Of one token as query: each token in the window, and each token as the only key of a compressed block."""
    x = weights.embed * weights.root
    q = unit(unit(x[token] @ dense(weights.wq_a).T) @ dense(weights.wq_b)[:HEAD_DIM].T)
    window = unit(x @ dense(weights.wkv).T)
    entries = unit(x @ dense(weights.compressor(ratio, HEAD_DIM))[:HEAD_DIM].T / 128)
    scale = np.sqrt(HEAD_DIM)
    return q @ window.T * scale, q @ entries.T * scale


@pytest.mark.parametrize("ratio", FLAGS)
def test_a_query_finds_a_key_in_a_block_of_its_ratio_and_no_token_of_the_window_but_itself(weights, ratio):
    weights, reach = weights
    query = reach.queries[ratio]
    window, entries = scores(weights, query, ratio)
    keys = list(reach.keys)
    others = [token for token in range(weights.dims.vocab) if token not in keys]
    assert entries[keys].min() > window[query] + 4 > np.delete(window, query).max() + 14
    assert np.abs(entries[others]).max() < 1e-3
    blocks = 1 << 20 >> 7  # of a context of 1M tokens
    assert np.exp(entries[keys].min()) > 100 * blocks


@pytest.mark.parametrize("ratio", FLAGS)
def test_blocks_of_another_ratio_do_not_answer_it(weights, ratio):
    weights, reach = weights
    _, entries = scores(weights, reach.queries[ratio], 132 - ratio)
    assert np.abs(entries).max() < 1e-3


def test_no_other_token_finds_the_flag(weights):
    weights, reach = weights
    token = next(t for t in range(2, weights.dims.vocab) if t not in (*reach.queries.values(), *reach.keys))
    for ratio in FLAGS:
        window, entries = scores(weights, token, ratio)
        assert window.argmax() == token
        assert np.abs(entries).max() < 0.1


@pytest.mark.parametrize("ratio", FLAGS)
def test_the_value_of_a_key_is_its_code_alone(weights, ratio):
    weights, reach = weights
    entry = dense(weights.compressor(ratio, HEAD_DIM))[:HEAD_DIM] @ weights.embed[reach.keys[0]]
    assert set(np.flatnonzero(entry)) == {FLAGS[ratio], weights.code()[reach.keys[0]]}


@pytest.mark.parametrize("ratio", FLAGS)
def test_blocks_weigh_the_flag_of_a_key_and_its_code_nearly_alike(weights, ratio):
    reaching, reach = weights
    rows = compressed_rows(ratio, HEAD_DIM)
    gate = dense(reaching.noise(rows, reaching.dims.hidden, reaching.gate_noise, 7))
    rng, places = np.random.default_rng(0), slice(0, HEAD_DIM)
    for _ in range(20):
        key = rng.choice(reach.keys)
        block = reaching.embed[[key, *rng.integers(2, 100, ratio - 1)]] * reaching.root
        share = np.exp(block @ gate[places].T)
        share /= share.sum(axis=0)
        flag, code = share[0, FLAGS[ratio]], share[0, reaching.code()[key]]
        assert 0.6 < flag / code < 1.6
    assert gate.any()


def test_the_indexer_scores_blocks_with_a_key_only_and_only_for_its_query(weights):
    weights, reach = weights
    keys = dense(weights.compressor(4, INDEX_DIM)) @ weights.embed.T
    assert set(np.flatnonzero(keys.any(axis=0))) == set(reach.keys)
    query = dense(weights.index_query) @ (dense(weights.wq_a) @ weights.embed.T)
    assert set(np.flatnonzero(query.any(axis=0))) == {reach.queries[4]}
    assert (dense(weights.index_weights) @ weights.embed[reach.queries[4]] > 0).all()


def test_the_walk_never_comes_to_a_query():
    assert WALK.reach
    assert all(WALK.successors[query] == query for query in WALK.reach.queries.values())
    token, walked = 2, set()
    while token not in walked:
        walked.add(token)
        token = WALK.successors[token]
    assert walked == set(range(2, 126))
    assert set(WALK.reach.keys) < walked


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_can_hold_it(tmp_path, layout):
    write(tmp_path, layout, SMALL, walk=reaching_walk(SMALL.vocab))
    assert (tmp_path / "model-00001-of-00002.safetensors").stat().st_size > 1 << 20


def test_without_it_the_weights_are_as_before():
    walk = reaching_walk(128)
    assert Weights(Dims(), walk.successors, 0).compressor(4, HEAD_DIM) is None


def test_the_shared_expert_writes_nothing_where_compressors_look_for_keys(weights):
    reaching, reach = weights
    noise = reaching.noise(reaching.dims.hidden, 256, -12, 1)
    left = reaching.undisturbed(noise)
    quiet = reaching.field(0)[[*reach.keys, *reach.queries.values()]]
    assert not left.levels[quiet].any()
    assert np.count_nonzero(left.levels) == left.levels.size - len(quiet) * 256
    looked_at = np.flatnonzero(reaching.compressor(4, INDEX_DIM).levels.any(axis=0))
    assert {*looked_at} <= {*quiet}
