"""
What all tests share: their kinds, the reasons of skips, and fixtures of several rooms.

A session starts each vLLM once, whichever room asks for it.
"""

import gc
import os
import signal

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is imported: processes side by side would wait for each other

import pytest
from hypothesis import settings

from tests.support.examples import QUICK
from tests.support.kinds import pytest_collection_modifyitems, pytest_itemcollected, pytest_sessionfinish
from tests.support.running_demo import keyed_demo, keyed_start, running_demo
from tests.support.schedule import pytest_xdist_make_scheduler
from tests.support.skips import pytest_terminal_summary
from tests.support.temporary import pytest_configure, remove_folder
from tests.support.vllm_servers import answering, broken, vllm

__all__ = [
    "answering",
    "broken",
    "keyed_demo",
    "keyed_start",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_itemcollected",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "pytest_xdist_make_scheduler",
    "running_demo",
    "vllm",
]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job that a script's shell put into the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests interrupt themselves and their children

gc.disable()  # while tests are collected: almost all that is made then stays


def pytest_collection_finish() -> None:
    """From here on garbage is collected among what tests make."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    """At its end pytest, and then Python, would look through all that is left: two seconds of each process."""
    gc.freeze()
    remove_folder(config)


settings.register_profile("any machine", deadline=None)  # a busy one takes longer for an example than another one did
settings.register_profile("quick", settings.get_profile("any machine"), max_examples=QUICK)  # make test-fast
settings.load_profile("any machine")
