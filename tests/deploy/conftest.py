"""Two replicas with a real supervisor each, on 127.0.0.2 and 127.0.0.3, behind a real HAProxy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from dsv4_serve.demo.llama import write_checkpoint
from tests.deploy.pair import MakePair, Pair
from tests.support.balancer import KEY, Names, balancer, free_port
from tests.support.program import executable, need
from tests.support.replica import Replica, replica


@pytest.fixture(scope="session")
def binary() -> str:
    return need("haproxy", "HAPROXY")


@pytest.fixture(scope="session")
def make_pair(binary: str, tmp_path_factory: pytest.TempPathFactory) -> MakePair:
    """Two replicas behind a balancer; keywords are variables of replicas and balancer."""
    model = write_checkpoint(tmp_path_factory.mktemp("checkpoint"))

    @contextmanager
    def make(**env: str) -> Iterator[Pair]:
        folder = tmp_path_factory.mktemp("pair")
        program = executable(folder / "vllm", "tests.support.engine")
        (folder / "key").write_text(KEY)
        port, health_port = free_port(), free_port()
        with ExitStack() as stack:

            def start(address: str) -> Replica:
                settings = {
                    "PROFILE": "demo",
                    "MODEL": f"demo={model}",
                    "PORT": str(port),
                    "DSV4_HEALTH_HOST": address,
                    "DSV4_HEALTH_PORT": str(health_port),
                    "DSV4_VLLM": str(program),
                    "DSV4_GATE_TOKENS": "8",
                    "API_KEY_FILE": str(folder / "key"),
                    "DSV4_OPEN_ROUTES": "/health,/seen",
                    **env,
                }
                words = ("--host", address)
                started = replica(folder / address, *words, model_name="stand-in", seconds_to_stop=5, **settings)
                return stack.enter_context(started)

            names = Names()
            ports = {"REPLICA_PORT": str(port), "REPLICA_HEALTH_PORT": str(health_port)}
            front = stack.enter_context(balancer(folder / "balancer", names, binary=binary, **ports, **env))
            pair = Pair(front, names, start, port, health_port)
            for address in ("127.0.0.2", "127.0.0.3"):
                pair.add(address)
            pair.until_up("127.0.0.2", "127.0.0.3")
            yield pair

    return make


@pytest.fixture(scope="session")
def pair(make_pair: MakePair) -> Iterator[Pair]:
    """A pair that stays whole: its start takes four seconds of CPU time."""
    with make_pair(DSV4_SUPERVISE_DRAIN_WAIT="0") as made:
        yield made
