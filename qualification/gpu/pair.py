"""Replicas side by side, each with its GPUs, on 127.0.0.2 and up, behind HAProxy with the configuration that is shipped."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pynvml

from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.client.local_replica import QUICK_END, ReplicaEnded, Started, free_port, stops_raise
from qualification.fleet.haproxies import program
from tests.deploy.pair import Pair
from tests.support.balancer import KEY, Late, Names, balancer
from tests.support.replica import Replica, replica

STEP = 0.2  # seconds between two looks


def address(number: int) -> str:
    """Return the loopback address of a replica."""
    return f"127.0.0.{number + 2}"


def groups(gpus: str, size: int) -> list[str]:
    """Return `gpus` (0,1,2,3) in groups of so many, each as CUDA_VISIBLE_DEVICES; raise ValueError where some are left."""
    every = gpus.split(",")
    if len(every) % size:
        raise ValueError(f"GPUs {gpus} cannot be divided into groups of {size}")
    return [",".join(every[at : at + size]) for at in range(0, len(every), size)]


@contextmanager
def pair(
    devices: Sequence[str],
    arguments: Sequence[str],
    environ: Mapping[str, str],
    folder: Path,
    *,
    quick_end: bool = True,
) -> Iterator[Pair]:
    """
    Start `dsv4 serve ARGUMENTS` for each of `devices`, all at the same time, and the balancer; yield them as they start.

    `quick_end` ends them without the wait for a balancer. Raise FileNotFoundError without HAProxy.
    """
    binary = program()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "key").write_text(KEY)
    port, health_port = free_port(), free_port()
    with ExitStack() as stack:

        def start(where: str) -> Replica:
            settings = {
                **{name: value for name, value in environ.items() if name.startswith(("DSV4_", "VLLM_", "NUM_"))},
                "CUDA_VISIBLE_DEVICES": placed[where],
                "PORT": str(port),
                "DSV4_HEALTH_HOST": where,
                "DSV4_HEALTH_PORT": str(health_port),
                "API_KEY_FILE": str(folder / "key"),
                "TMPDIR": tempfile.gettempdir(),  # short, for the paths of vLLM's sockets
            }
            own = [*arguments, "--host", where, *(QUICK_END if quick_end else ())]
            running = replica(folder / where, *own, model_name="deepseek-v4-flash", seconds_to_stop=30, **settings)
            return stack.enter_context(running)

        placed = {address(number): gpus for number, gpus in enumerate(devices)}
        names = Names()
        ports = {"REPLICA_PORT": str(port), "REPLICA_HEALTH_PORT": str(health_port)}
        front = stack.enter_context(balancer(folder / "balancer", names, binary=binary, **ports))
        made = Pair(front, names, start, port, health_port)
        for where in placed:
            made.add(where)
        yield made


def until_started(made: Pair, patience: float) -> dict[str, Any]:
    """Wait until all are ready and get requests; return how long it took each, its phases and GPUs; raise Late."""
    began, ready = time.monotonic(), dict[str, float]()
    while len(ready) < len(made.replicas):
        for where, running in made.replicas.items():
            if running.process.poll() is not None or time.monotonic() - began > patience:
                raise Late(f"{where}: not ready, others after {ready}\n{running.log_text()[-2000:]}")
            if where not in ready and made.ready(where):
                ready[where] = round(time.monotonic() - began, 1)
        time.sleep(STEP)
    rotation = round(made.until_up(*made.replicas), 1)
    own = {
        where: {"ready_after": ready[where], "gpus": gpus_of(running), **phase(made, where)}
        for where, running in made.replicas.items()
    }
    return {"in_rotation_after_ready": rotation, "replicas": own}


@contextmanager
def served(
    devices: Sequence[str], arguments: Sequence[str], environ: Mapping[str, str], folder: Path, patience: float
) -> Iterator[Started]:
    """Start them, and yield the balancer's address when all are ready; the plan is that of the first."""
    with stops_raise(), pair(devices, arguments, environ, folder) as made:
        try:
            start = until_started(made, patience)
        except Late as error:
            raise ReplicaEnded(str(error)[-600:]) from None
        health = f"http://{address(0)}:{made.health_port}"
        first = made.replicas[address(0)]
        yield Started(Endpoint(made.balancer.url, health, KEY), first.log, start, first.process)


def phase(made: Pair, where: str) -> dict[str, Any]:
    """Return what a replica says of its start: `phases` in seconds, and whether its `caches` were warm."""
    url = f"http://{where}:{made.health_port}/startupz?format=json"
    found = httpx.get(url, trust_env=False).json()
    return {"caches": found["caches"], "phases": {name: round(s, 1) for name, s in found["phases"].items()}}


def gpus_of(running: Replica) -> list[int]:
    """Return the indexes, by NVML, of the GPUs whose memory the processes of a replica hold; none without a driver."""
    try:
        pynvml.nvmlInit()
        handles = list(map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount())))
        pids = {process.pid for process in running.family()}
        held = [{one.pid for one in pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)} for gpu in handles]
        return [number for number, holders in enumerate(held) if holders & pids]
    except (pynvml.NVMLError, psutil.Error):
        return []
