"""The constructed DSpark drafter, in exact arithmetic: it drafts the walk, and each of its parts is needed."""

import copy
import dataclasses

import numpy as np
import pytest

from dsv4_serve.demo.v4_dspark import LAYERS, NOISE, DraftLayer, DSparkWeights
from dsv4_serve.demo.v4_tensors import Linear, dense
from dsv4_serve.demo.v4_weights import HEAD_DIM, Dims, Weights, permutation

SMALL = Dims(experts=8, vocab=64, ratios=(0, 4, 128))
DRAFTED = 7
PROMPTS = ([5, 9, 30], [40] * 20, list(range(2, 60)))


def norm(x):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6)


def first(linear, rows, cols=None):
    """The upper left corner of a weight as numbers: heads and groups have equal weights."""
    return dense(Linear(linear.levels[:rows, :cols], linear.exps[:rows, : cols and cols // 16])).T


class Layer:
    """The numbers of a layer's weights."""

    def __init__(self, weights, dims):
        per_group = dims.heads // dims.o_groups
        self.wq_a, self.wkv = dense(weights.wq_a).T, dense(weights.wkv).T
        self.wq_b = first(weights.wq_b, HEAD_DIM)
        self.wo_a = first(weights.wo_a, dims.o_lora, HEAD_DIM) * per_group
        self.wo_b = first(weights.wo_b, None, dims.o_lora) * dims.o_groups
        self.expert_in, self.expert_out = dense(weights.expert_in).T, dense(weights.expert_out).T

    def __call__(self, x, context, alone=False):
        """What all heads say, in dimensions that RoPE does not turn; then the experts."""
        query = norm(norm(norm(x) @ self.wq_a) @ self.wq_b)
        keys = norm(np.concatenate([context, norm(x)]) @ self.wkv)
        weights = np.exp(query @ keys.T / np.sqrt(HEAD_DIM)) * (np.eye(len(x)) if alone else 1)
        found = weights / (1 + weights.sum(axis=1, keepdims=True)) @ keys
        x = x + found @ self.wo_a @ self.wo_b
        gate = np.clip(norm(x) @ self.expert_in, -10, 10)
        return x + 1.5 * (gate / (1 + np.exp(-gate)) * gate) @ self.expert_out


def hidden_states(weights):
    """Each token's stream after the target layers that the drafter reads; a token attends to itself."""
    layer, stream, states = Layer(weights, weights.dims), weights.embed.astype(np.float32), []
    for _ in weights.dims.ratios:
        stream = layer(stream, stream[:0], alone=True)
        states.append(stream)
    return np.concatenate(states[-LAYERS:], axis=1)


class Reference:
    """Arrays of the drafter, for a test to break."""

    def __init__(self, dims):
        self.weights = Weights(dims, permutation(dims.vocab, 0), 0)
        drafter = DSparkWeights(self.weights)
        self.layers = [Layer(layer, dims) for layer in drafter.layers]
        self.main_proj = dense(drafter.main_proj).T
        self.markov_w1, self.markov_w2 = drafter.markov_w1, drafter.markov_w2
        self.states = hidden_states(self.weights)

    def draft(self, prompt):
        context = norm(self.states[prompt] @ self.main_proj)
        anchor = int(self.weights.perm[prompt[-1]])
        x = self.weights.embed[[anchor, *[NOISE] * (DRAFTED - 1)]]
        for layer in self.layers:
            x = layer(x, context)
        tokens = [anchor]
        for logits in norm(x) @ self.weights.head.T:
            tokens.append(int(np.argmax(logits + self.markov_w2 @ self.markov_w1[tokens[-1]])))
        return tokens[1:]

    def accepted(self):
        """The share of draft tokens that the target model would accept: those before the first wrong one."""
        total = 0
        for prompt in PROMPTS:
            want = self.weights.perm[prompt[-1]]
            for token in self.draft(prompt):
                want = self.weights.perm[want]
                if token != want:
                    break
                total += 1
        return total / (DRAFTED * len(PROMPTS))


@pytest.fixture(scope="module")
def reference():
    return Reference(SMALL)


@pytest.fixture
def small(reference):
    broken = copy.copy(reference)
    broken.layers = [copy.copy(layer) for layer in reference.layers]
    return broken


@pytest.mark.parametrize("dims", [SMALL, Dims()], ids=["small", "tiny"])
def test_seven_tokens_are_drafted_as_the_target_model_puts_them(dims):
    assert Reference(dims).accepted() == 1.0


@pytest.mark.parametrize("name", ["main_proj", "markov_w1", "markov_w2"])
def test_without_a_projection_or_the_markov_head_few_tokens_are_right(small, name):
    setattr(small, name, 0 * getattr(small, name))
    assert small.accepted() <= 0.2


@pytest.mark.parametrize("number", range(LAYERS))
@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(DraftLayer)])
def test_without_one_weight_of_a_layer_few_tokens_are_right(small, number, name):
    layer = small.layers[number]
    setattr(layer, name, 0 * getattr(layer, name))
    assert small.accepted() <= 0.3


def test_two_layers_that_changed_places_draft_nothing(small):
    small.layers[0], small.layers[1] = small.layers[1], small.layers[0]
    assert small.accepted() <= 0.3


def test_one_target_layer_of_three_missing_is_a_third_of_the_tokens(small):
    small.main_proj = small.main_proj.copy()
    small.main_proj[: SMALL.hidden] = 0
    perm = small.weights.perm
    right = [small.draft([token])[0] == perm[perm[token]] for token in range(2, 64, 4)]
    assert 0.4 < np.mean(right) < 0.9


def test_a_vocabulary_that_leaves_no_room_is_refused():
    with pytest.raises(ValueError, match="DSpark needs hidden >= 4"):
        DSparkWeights(Weights(Dims(vocab=128, hidden=512, q_lora=192, o_lora=192), permutation(128, 0), 0))
