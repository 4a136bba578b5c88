"""
What all tests share: their kinds, the reasons of skips, and fixtures of several rooms.

A session starts each vLLM once, whichever room asks for it.
"""

from tests.support.kinds import pytest_itemcollected
from tests.support.skips import pytest_terminal_summary
from tests.support.vllm_servers import answering, broken, vllm

__all__ = ["answering", "broken", "pytest_itemcollected", "pytest_terminal_summary", "vllm"]
