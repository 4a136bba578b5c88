"""
What the watch for GPU faults can read on this host (`on_host.sh watch`): events that each GPU supports, and its state.

It makes no fault: on a sound host it shows that events can be registered, and that each state is read.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pynvml

from dsv4_serve.entrypoint.machine.gpu_states import GpuStates
from dsv4_serve.entrypoint.machine.nvml import read_driver
from dsv4_serve.entrypoint.machine.xid_sources import NvmlEvents
from dsv4_serve.entrypoint.vllm_log import xid


def readings() -> dict[str, Any]:
    """Return the driver's version and, by PCI address, the kinds of events and the state."""
    driver = read_driver()
    buses = {xid.bus(gpu.bus) for gpu in driver.gpus if gpu.bus}
    events, states = NvmlEvents(buses), GpuStates(buses)
    supported = {}
    for gpu in driver.gpus:
        handle = pynvml.nvmlDeviceGetHandleByIndex(gpu.index)
        supported[gpu.bus] = hex(pynvml.nvmlDeviceGetSupportedEventTypes(handle))
    quiet = events.wait(1.0) is None and not list(states.worse())
    sound = {bus: asdict(state) for bus, state in states.first.items()}
    return {"driver": driver.version, "events": supported, "states": sound, "quiet": quiet}


if __name__ == "__main__":
    text = json.dumps(readings(), indent=2)
    Path(os.environ.get("OUT", "."), "watch.json").write_text(text + "\n", encoding="utf-8")
    print(text)
