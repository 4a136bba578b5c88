"""What the blocks of vLLM's KV caches hold where there is no model: of each position, the request that wrote it."""

import bisect
import functools


class Memory:
    """
    A scheduler of vLLM, and for each block who wrote which position of it.

    Drafters' caches depend on the token after a position too. With a connector there are blocks of host memory as well.
    """

    def __init__(self, scheduler):
        self.scheduler, self.gpu, self.host, self.stale = scheduler, {}, {}, []
        self.at: dict[str, int] = {}
        self.found: dict[str, list[int]] = {}
        self.groups = [
            (spec.block_size, getattr(spec, "sliding_window", None), group.is_eagle_group * scheduler.num_spec_tokens)
            for group in scheduler.kv_cache_config.kv_cache_groups
            for spec in [group.kv_cache_spec]
        ]

    def __getattr__(self, name):
        return getattr(self.scheduler, name)

    def schedule(self):
        for request in self.scheduler.running:  # drafts that were accepted are tokens now
            if begin := self.at.get(request.request_id):
                self.write(request, range(begin, request.num_computed_tokens))
        step = self.scheduler.schedule()
        copies = step.kv_connector_metadata
        if copies:
            for job in copies.load_jobs.values():
                self.copy(self.host, job.src_spec.block_ids, self.gpu, job.dst_spec.block_ids)
        begins = {one.req_id: one.num_computed_tokens for one in step.scheduled_new_reqs}
        later = step.scheduled_cached_reqs
        starts = {*begins, *later.resumed_req_ids}
        begins |= dict(zip(later.req_ids, later.num_computed_tokens, strict=True))
        for name, begin in begins.items():
            self.write(self.scheduler.requests[name], range(begin, begin + step.num_scheduled_tokens[name]))
            self.at[name] = begin
        for name, begin in begins.items():  # after all of the step is written, as in each layer of a model
            self.read(self.scheduler.requests[name], begin, starts=name in starts)
            if name in starts:
                self.found.setdefault(name, []).append(begin)
        if copies:
            for job in copies.store_jobs.values():
                self.copy(self.gpu, job.src_spec.block_ids, self.host, job.dst_spec.block_ids)
        return step

    @staticmethod
    def copy(source, rows, target, places):
        assert len(rows) == len(places)
        for row, place in zip(rows, places, strict=True):
            target[int(place)] = dict(source[int(row)])

    def write(self, request, positions):
        for (size, *_), own in zip(self.groups, self.blocks(request), strict=True):
            for at in positions:
                if own[at // size]:
                    known = at < request.num_tokens  # or a draft
                    self.gpu.setdefault(own[at // size], {})[at] = request if known else None

    def read(self, request, begin, *, starts):
        """
        Check what a request attends to: all of it when it starts, windows at each step.

        Note what was written for the same tokens up to there, but other ones after it.
        """
        common = functools.cache(lambda writer: in_common(writer.all_token_ids, request.all_token_ids))
        for (size, window, ahead), own in zip(self.groups, self.blocks(request), strict=True):
            if not window and not starts:
                continue
            for at in range(max(0, begin - window + 1) if window else 0, begin):
                writer = self.gpu.get(own[at // size], {}).get(at)
                assert writer, f"position {at} of {begin} is missing in a group of {size}"
                if writer is request:
                    continue
                same = common(writer)
                assert same > at, f"position {at} of {begin} has another prefix in a group of {size}"
                if same <= at + ahead:
                    self.stale.append(f"position {at} of {begin} has another next token in a group of {size}")

    def blocks(self, request):
        return self.scheduler.kv_cache_manager.get_block_ids(request.request_id)

    def lose(self):
        """Lose what the GPU's prefix cache has."""
        assert self.scheduler.kv_cache_manager.reset_prefix_cache()
        self.gpu.clear()


def in_common(one, other):
    """How many tokens two sequences begin with alike."""
    shortest = min(len(one), len(other))
    return bisect.bisect_left(range(shortest), True, key=lambda at: one[: at + 1] != other[: at + 1])
