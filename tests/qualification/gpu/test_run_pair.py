"""Who answered in a run of replicas behind HAProxy, by its log."""

from __future__ import annotations

import argparse

import pytest

from qualification.gpu.run_pair import LOGGED, answered, steps

LOG = """\
[WARNING]  (3802) : Health check for server replicas/replica1 succeeded, reason: Layer7 check passed, code: 200
127.0.0.1:40460 [30/Nov/2026:01:01:16.436] api replicas/replica1 0/0/0/23/1788 200 11498 - - ---- 2/2/1/1/0 0/0 default "POST /v1/completions HTTP/1.1"
127.0.0.1:40462 [30/Nov/2026:01:01:16.440] api sessions/replica2 0/0/0/20/1801 200 11498 - - ---- 1/1/0/0/0 0/0 default "POST /v1/completions HTTP/1.1"
127.0.0.1:40464 [30/Nov/2026:01:01:18.101] api sessions/replica2 0/0/0/19/612 200 4112 - - SD-- 1/1/0/0/0 0/0 default "POST /v1/completions HTTP/1.1"
127.0.0.1:40466 [30/Nov/2026:01:01:19.220] api replicas/<NOSRV> 0/-1/-1/-1/0 503 310 - - SC-- 1/1/0/0/0 0/0 default "POST /v1/completions HTTP/1.1"
127.0.0.1:40468 [30/Nov/2026:01:01:20.004] api replicas/replica1 0/0/0/3/3 200 512 - - ---- 1/1/0/0/0 0/0 default "GET /v1/models HTTP/1.1"
"""
ADDRESSES = {"replicas/replica1": "127.0.0.2", "replicas/replica2": "127.0.0.3"}
ADDRESSES |= {"sessions/replica1": "127.0.0.2", "sessions/replica2": "127.0.0.3"}


def test_each_replica_answered_what_was_neither_cut_off_nor_refused() -> None:
    requests = list(LOGGED.finditer(LOG))
    assert len(requests) == 4
    assert answered(requests, ADDRESSES) == {"127.0.0.2": 1, "127.0.0.3": 1}


def test_steps_are_named_in_their_order_and_begin_with_the_start() -> None:
    assert steps("start,kill,after kill,hang") == ["start", "kill", "after kill", "hang"]
    for text, said in (
        ("kill", "the first step is start, not kill"),
        ("start,hung", "no step 'hung'; there are start, drain"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=said):
            steps(text)
