"""
What all tests share: their kinds, the reasons of skips, and fixtures of several rooms.

A session starts each vLLM once, whichever room asks for it.
"""

from hypothesis import settings

from tests.support.kinds import pytest_itemcollected
from tests.support.running_demo import running_demo
from tests.support.skips import pytest_terminal_summary
from tests.support.vllm_servers import answering, broken, vllm

__all__ = ["answering", "broken", "pytest_itemcollected", "pytest_terminal_summary", "running_demo", "vllm"]

settings.register_profile("any machine", deadline=None)  # a busy one takes longer for an example than another one did
settings.load_profile("any machine")
