"""
Many simulated replicas in one process: `serve_fleet.py COUNT PORT HEALTH_PORT`.

Reads commands from standard input: `kill 3`, `start 3`, `hang 3`, `freeze 3`, `thaw 3`, `drain 3`, `slow 3 4.0`, `look`, and `report
FILE`, which writes what reached the replicas. Each is answered with a line that says when it was done, which replicas are over
and how many requests each has.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import uvloop

from qualification.fleet.simulated import Log, Replica
from qualification.fleet.timings import RTX_PRO_6000_TP2

SAMPLE = 0.1


def address(number: int) -> str:
    """Return the loopback address of a replica."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


async def serve(count: int, port: int, health_port: int) -> None:
    log = Log()
    replicas = [Replica(n, address(n), (port, health_port), RTX_PRO_6000_TP2, log) for n in range(count)]
    for replica in replicas:
        await replica.start()
    print("serving", flush=True)
    sampling = asyncio.create_task(sample(replicas, log))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split():
        await obey(line[0], line[1:], replicas, log)
        over = [replica.number for replica in replicas if not replica.servers]
        loads = [replica.load for replica in replicas]
        print(json.dumps({"at": time.monotonic(), "over": over, "loads": loads}), flush=True)
    sampling.cancel()


async def sample(replicas: list[Replica], log: Log) -> None:
    while True:
        log.loads.append((time.monotonic(), [replica.load for replica in replicas]))
        await asyncio.sleep(SAMPLE)


async def obey(what: str, arguments: list[str], replicas: list[Replica], log: Log) -> None:
    if what == "report":
        Path(arguments[0]).write_text(json.dumps(asdict(log)))
        return
    if what == "look":
        return
    replica = replicas[int(arguments[0])]
    match what:
        case "start":
            await replica.start()
        case "freeze" | "thaw":
            replica.freeze(frozen=what == "freeze")
        case "slow":
            replica.slow = float(arguments[1])
        case "kill" | "hang" | "drain":
            getattr(replica, what)()


if __name__ == "__main__":
    uvloop.run(serve(*map(int, sys.argv[1:4])))
