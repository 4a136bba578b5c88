"""Check who can reach vLLM's API."""

from __future__ import annotations

from ...machine.requirements import HostRequirements
from ...problem import Problem, check


@check(
    symptom="Strangers use the GPUs: without a key vLLM answers everyone who reaches its port",
    link="docs/how-to/keys.md",
    remedy="set API_KEY_FILE, or listen on loopback (--host 127.0.0.1); in a container, publish the port on loopback",
    tried="for real",
)
def api_key_set(required: HostRequirements) -> Problem | None:
    """vLLM's API has a key, or listens on loopback only."""
    if not required.open_address:
        return None
    return Problem(
        f"NO KEY: everyone who reaches {required.open_address} can use the API", "a key, or loopback", fatal=False
    )
