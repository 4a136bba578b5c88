"""Fixtures of several rooms. A session starts each vLLM once, whichever room asks for it."""

from tests.support.vllm_servers import answering, broken, vllm

__all__ = ["answering", "broken", "vllm"]
