"""With a key, a replica closes every route of vLLM that has none, and proves itself with the key all the same."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.support.replica import Start

pytestmark = [pytest.mark.process, pytest.mark.slow]


def ask(port: int, path: str, key: str = "") -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.get(f"http://127.0.0.1:{port}{path}", headers=headers, trust_env=False).status_code


def test_the_routes_of_a_replica_with_a_key(start: Start) -> None:
    with start(VLLM_API_KEY="s3cret") as running:
        running.until(running.ready, 30, "ready")  # the gate asked with the key, /metrics too
        for path in ("/metrics", "/v1/models"):
            assert [ask(running.port, path, key) for key in ("", "other", "s3cret")] == [401, 401, 200]
        assert ask(running.port, "/health") == 200
        for name in ("client_routes.py", "error_body.py", "key_guard.py"):
            copy = running.run_folder / "python/dsv4_serve/healthcheck" / name
            assert copy.read_bytes() == Path("healthcheck", name).read_bytes()
        one = httpx.get(
            f"http://127.0.0.1:{running.port}/v1/models/stand-in",
            headers={"Authorization": "Bearer s3cret"},
            trust_env=False,
        )
        assert one.json() == {"id": "stand-in"}


def test_routes_that_are_opened_and_no_guard_without_a_key(start: Start) -> None:
    with start(VLLM_API_KEY="s3cret", DSV4_OPEN_ROUTES="/health,/metrics") as running:
        running.until(running.ready, 30, "ready")
        assert [ask(running.port, path) for path in ("/metrics", "/v1/models")] == [200, 401]
    with start() as running:
        running.until(running.ready, 30, "ready")
        assert ask(running.port, "/v1/models") == 200


def test_a_key_file_that_changes_while_the_replica_serves(start: Start, tmp_path: Path) -> None:
    keys, old, new = tmp_path / "keys", "old-key-0123456789", "new-key-0123456789"
    keys.write_text(f"alice {old} 1000\n")
    with start(API_KEY_FILE=str(keys)) as running:
        running.until(running.ready, 30, "ready")  # with a key of its own
        assert [ask(running.port, "/v1/models", key) for key in ("", "other", old)] == [401, 401, 200]
        assert [ask(running.health_port, "/plan", key) for key in ("", new, old)] == [401, 401, 200]
        keys.write_text(f"bob {new}\n")
        running.until(lambda: ask(running.port, "/v1/models", new) == 200, 10, "read again")
        running.until(lambda: ask(running.health_port, "/plan", new) == 200, 10, "read again")
        assert [
            ask(port, path, old) for port, path in ((running.port, "/metrics"), (running.health_port, "/plan"))
        ] == [401] * 2
        assert running.ready()
        assert old not in running.log_text()
        assert old not in (running.run_folder / "plan.json").read_text()
