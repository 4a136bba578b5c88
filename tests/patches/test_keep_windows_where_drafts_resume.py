"""
Which prompts come back from host memory, and whether what comes back is right, by vLLM's own scheduler and connector.

Instead of a model there is a memory that knows of each position in each block which request wrote it: drafters' caches
depend on the token after a position too.
"""

import functools
import itertools
import random

from tests.patches.kv_memory import Memory, in_common

BLOCK, DRAFTS_BLOCK = 256, 64
BLOCKS_OF_A_PROMPT = 2
QUESTION = 70
SHARED = (0, 1, 31, 62, 63, 64, 65, 255)
REST = 1000
DRAFTERS = {"mtp": {}, "mtp-3": {"draft_tokens": 3}, "dspark": {"drafter": "dspark", "draft_tokens": 5}, "none": {}}


class Replica:
    """One engine, which serves prompts, loses what its GPU has, and serves the next turn."""

    def __init__(self, drafter, batched_tokens=8192, **extra):
        from vllm.v1.kv_offload.cpu.spec import CPUOffloadingSpec

        from qualification.calibration import offloading
        from tests.support import cuda_model

        cuda_model.prepare()
        setattr(CPUOffloadingSpec, "_uses_shared_region", lambda _: True)  # noqa: B010  as on CUDA
        setting = {
            "trunk": "five-layers",
            "mtp": drafter != "none",
            "async": False,
            "context": 4096,
            "batched_tokens": batched_tokens,
            "tp": 1,
            "available_bytes": 1 << 30,
            "gib": 16,
            "extra": extra,
        }
        scheduler, self.hasher = offloading.engine(setting | DRAFTERS[drafter])
        self.memory, self.by_chance = Memory(scheduler), random.Random(1)

    def serve(self, tokens, output=1):
        """The tokens of a conversation after a turn, the blocks that it stored, and the tokens that came back."""
        from qualification.calibration import offloading

        request, stored, restored = offloading.serve(self.memory, self.hasher, tokens, output, self.by_chance)
        return list(request.all_token_ids), stored, restored

    def tokens(self, count):
        return [self.by_chance.randrange(1000, 100_000) for _ in range(count)]

    def comes_back(self, prompt, output):
        """The blocks that a turn stored, and the tokens of it that the next one got after the GPU had lost it."""
        history, stored, _ = self.serve(prompt, output)
        self.lose()
        _, _, restored = self.serve([*history, *self.tokens(QUESTION)])
        self.lose()
        return stored, restored

    def lose(self):
        self.memory.lose()


@functools.cache
def replica(*args, **options):
    return Replica(*args, **options)


def resumes(drafter, prompt):
    """The last boundary that a request with this prompt's tokens can resume at."""
    return max(0, prompt - (1 if drafter == "none" else DRAFTS_BLOCK)) // BLOCK * BLOCK


def ranges(numbers):
    runs = [
        [n for _, n in run] for _, run in itertools.groupby(enumerate(sorted(numbers)), lambda one: one[1] - one[0])
    ]
    return ", ".join(f"{run[0]} to {run[-1]}" for run in runs)


def every_length(drafter):
    served = replica(drafter)
    nothing, other, stores = [], {}, set()
    for past in range(BLOCK):
        prompt = served.tokens(BLOCKS_OF_A_PROMPT * BLOCK + past)
        stored, restored = served.comes_back(prompt, 3)
        nothing += [past] if not restored else []
        if restored and restored != resumes(drafter, len(prompt)):
            other[past] = restored
        stores.add(stored)
    assert not other, other
    assert not served.memory.stale, served.memory.stale
    assert not nothing, f"{len(nothing)} of {BLOCK} lengths restore nothing: {ranges(nothing)}"
    assert len(stores) == 1, stores


def check_every_length_comes_back_with_mtp():
    every_length("mtp")


def check_every_length_comes_back_with_three_drafts():
    every_length("mtp-3")


def check_every_length_comes_back_with_dspark():
    every_length("dspark")


def check_every_length_comes_back_without_drafts():
    every_length("none")


def check_answers_that_are_kept_bring_more_back():
    """With them a prompt comes back to its last whole block if prompt and answer together end far enough past it."""
    served = replica("mtp", offload_prompt_only=False)
    lost = {3: [], 100: []}
    for past, output in itertools.product(range(DRAFTS_BLOCK + 8), lost):
        length = BLOCKS_OF_A_PROMPT * BLOCK + past
        _, restored = served.comes_back(served.tokens(length), output)
        whole = (length - 1) // BLOCK * BLOCK
        enough = length + output - 1 >= whole + DRAFTS_BLOCK
        lost[output] += [] if restored else [past]
        assert restored in (0, whole if enough else resumes("mtp", length)), (past, output, restored)
    said = " and ".join(f"{ranges(found)} with {output} tokens" for output, found in lost.items() if found)
    assert not said, f"nothing comes back of {said}"


def parts(drafter, served):
    """What comes back of a prompt that ends 88 tokens past a boundary, to prompts that share so many of its tokens."""
    found = {}
    for shared in range(BLOCKS_OF_A_PROMPT * BLOCK - 3, BLOCKS_OF_A_PROMPT * BLOCK + DRAFTS_BLOCK + 4):
        prompt = served.tokens(BLOCKS_OF_A_PROMPT * BLOCK + 88)
        served.serve(prompt, 3)
        served.lose()
        _, _, found[shared] = served.serve([*prompt[:shared], *served.tokens(QUESTION)])
        served.lose()
    ahead = 0 if drafter == "none" else DRAFTS_BLOCK
    whole = BLOCKS_OF_A_PROMPT * BLOCK
    assert not served.memory.stale, served.memory.stale
    assert found == {shared: whole * (shared >= whole + ahead) for shared in found}


def beginnings(drafter):
    """What the third prompt with one beginning gets of it, after the GPU has lost the first two."""
    served, lost = replica(drafter), []
    for past in SHARED:
        shared = served.tokens(BLOCKS_OF_A_PROMPT * BLOCK + past)
        for _ in range(2):
            served.serve([*shared, *served.tokens(REST)], 3)
        served.lose()
        _, _, restored = served.serve([*shared, *served.tokens(REST)], 3)
        served.lose()
        lost += [past] if not restored else []
        assert restored in (0, resumes(drafter, len(shared) + (drafter == "none"))), (past, restored)
    assert not served.memory.stale, served.memory.stale
    assert not lost, f"nothing comes back of beginnings that end {ranges(lost)} tokens after a block"


def check_beginnings_that_prompts_share_come_back_with_mtp():
    beginnings("mtp")


def check_beginnings_that_prompts_share_come_back_with_dspark():
    beginnings("dspark")


def check_beginnings_that_prompts_share_come_back_without_drafts():
    beginnings("none")


def check_beginnings_that_the_gpu_lost_each_time_stay_unknown():
    """vLLM finds what prompts share in the GPU's cache alone, with drafts and without."""
    for drafter in ("mtp", "none"):
        served = replica(drafter)
        shared = served.tokens(BLOCKS_OF_A_PROMPT * BLOCK + DRAFTS_BLOCK)
        for _ in range(4):
            _, _, restored = served.serve([*shared, *served.tokens(REST)], 3)
            served.lose()
            assert not restored, (drafter, restored)


def check_prompts_that_differ_within_the_drafts_block_get_nothing():
    for drafter in DRAFTERS:
        parts(drafter, replica(drafter))


def check_blocks_that_are_not_right_would_be_noticed():
    """As if no group were the drafters', which is what vLLM does not do."""
    for drafter in ("mtp", "dspark"):
        served = Replica(drafter)
        connector = served.memory.scheduler.connector.scheduler
        without = [group._replace(is_eagle_group=False) for group in connector.config.kv_group_configs]
        connector.config = connector.config._replace(kv_group_configs=tuple(without))
        try:
            parts(drafter, served)
            message = "nothing was noticed"
        except AssertionError as wrong:
            message = str(wrong)
        assert "of 512 has another next token in a group of 64" in message, message


def conversations(drafter):
    """
    Turns that go on from any part of any earlier turn, some after the GPU has lost what it had.

    Here drafts may be stale, with and without the patch: vLLM keeps one block of those that have the same tokens, and two
    prompts that differ from the block's end on share it. The target model verifies every draft.
    """
    from hypothesis import HealthCheck, example, given, settings
    from hypothesis import strategies as st

    served = replica(drafter, batched_tokens=192)
    ahead, short = 1 if drafter == "none" else DRAFTS_BLOCK, []
    length = st.builds(
        lambda blocks, more: max(1, blocks * DRAFTS_BLOCK + more), st.integers(0, 14), st.integers(-9, 9)
    )
    turn = st.tuples(st.integers(0, 99), length, length, st.integers(1, 90), st.booleans())

    nine_behind = [(0, 1, 2 * BLOCK + 9, 1, False), (0, 2 * BLOCK + 9, DRAFTS_BLOCK, 1, True)]

    @settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @example(nine_behind)  # chance seldom finds one without the patch
    @given(st.lists(turn, min_size=2, max_size=8))
    def hold(turns):
        earlier = []
        served.lose()
        for of, kept, added, output, lost in turns:
            begun = earlier[of % len(earlier)][1][:kept] if earlier else []
            prompt = [*begun, *served.tokens(added)]
            if lost:
                served.lose()
            tokens, _, restored = served.serve(prompt, output)
            ends = [(resumes(drafter, length), in_common(prompt, other)) for length, other in earlier]
            there = max([end for end, common in ends if common >= end + ahead], default=0)
            if lost and restored < there:
                short.append(f"{restored} of {there} tokens came back, and the prompt has {len(prompt)}")
            earlier.append((len(prompt), tokens))

    hold()
    assert not short, short[0]


def check_conversations_with_mtp():
    conversations("mtp")


def check_conversations_with_dspark():
    conversations("dspark")


def check_conversations_without_drafts():
    conversations("none")


LENGTHS = "63 of 256 lengths restore nothing: 1 to 63"
BEGINNINGS = "nothing comes back of beginnings that end 0 to 1, 31 to 31, 62 to 63 tokens"


def test_every_length_comes_back_with_mtp(needs_patch):
    needs_patch("check_every_length_comes_back_with_mtp", LENGTHS)


def test_every_length_comes_back_with_three_drafts(needs_patch):
    needs_patch("check_every_length_comes_back_with_three_drafts", LENGTHS)


def test_every_length_comes_back_with_dspark(needs_patch):
    needs_patch("check_every_length_comes_back_with_dspark", LENGTHS)


def test_every_length_comes_back_without_drafts(holds):
    holds("check_every_length_comes_back_without_drafts")


def test_answers_that_are_kept_bring_more_back(needs_patch):
    needs_patch("check_answers_that_are_kept_bring_more_back", "nothing comes back of 1 to 61 with 3 tokens")


def test_beginnings_that_prompts_share_come_back_with_mtp(needs_patch):
    needs_patch("check_beginnings_that_prompts_share_come_back_with_mtp", BEGINNINGS)


def test_beginnings_that_prompts_share_come_back_with_dspark(needs_patch):
    needs_patch("check_beginnings_that_prompts_share_come_back_with_dspark", BEGINNINGS)


def test_beginnings_that_prompts_share_come_back_without_drafts(holds):
    holds("check_beginnings_that_prompts_share_come_back_without_drafts")


def test_beginnings_that_the_gpu_lost_each_time_stay_unknown(holds):
    holds("check_beginnings_that_the_gpu_lost_each_time_stay_unknown")


def test_prompts_that_differ_within_the_drafts_block_get_nothing(holds):
    holds("check_prompts_that_differ_within_the_drafts_block_get_nothing")


def test_blocks_that_are_not_right_would_be_noticed(holds):
    holds("check_blocks_that_are_not_right_would_be_noticed")


def test_conversations_with_mtp(needs_patch):
    needs_patch("check_conversations_with_mtp", "tokens came back")


def test_conversations_with_dspark(needs_patch):
    needs_patch("check_conversations_with_dspark", "tokens came back")


def test_conversations_without_drafts(holds):
    holds("check_conversations_without_drafts")
