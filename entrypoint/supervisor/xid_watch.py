"""
Watch for errors of the GPUs (Xid) while vLLM runs: one daemon thread waits for events, one reads the GPUs' states.

A call into the driver may block for ever once a GPU is lost, so nothing waits for these threads, neither a probe nor a
stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Mapping

from ..machine.gpu_states import GpuStates
from ..machine.machine import Machine
from ..machine.xid_sources import KernelLog, NvmlEvents, wait_for
from ..vllm_log import xid
from ..vllm_log.xid import UNKNOWN, Xid

STEP = 2.0  # seconds between two looks at the kernel log
LOOK = 10.0  # seconds between two looks at the states
LATE = 0.5  # seconds in which the error that ended vLLM may still arrive
KEPT = 64
log = logging.getLogger(__name__)


class XidWatch:
    """The errors so far. `available` tells whether any source can be read."""

    def __init__(
        self,
        buses: Collection[str],
        nvml: Callable[[Collection[str]], NvmlEvents] = NvmlEvents,
        kernel: Callable[[], KernelLog] = KernelLog,
        states: Callable[[Collection[str]], GpuStates] = GpuStates,
        note: Callable[[Xid], None] = lambda _: None,
    ) -> None:
        """
        `buses` are the PCI addresses of the GPUs; without any there is nothing to watch.

        `note` is called for each error, in a thread of this watch.
        """
        self._buses, self._nvml, self._kernel = frozenset(buses), nvml, kernel
        self._states, self._note = states, note
        self._found: list[Xid] = []
        self._adding = threading.Lock()
        self._end = threading.Event()
        self.available = False

    @classmethod
    def of(
        cls, machine: Machine | None, environ: Mapping[str, str], note: Callable[[Xid], None] = lambda _: None
    ) -> XidWatch:
        """Return the watch over the GPUs that a process with these variables sees."""
        gpus = machine.seen_with(environ).gpus if machine else []
        return cls({xid.bus(gpu.bus) for gpu in gpus if gpu.bus}, note=note)

    def start(self) -> None:
        """Begin, in two daemon threads."""
        if self._buses:
            threading.Thread(target=self.run, name="xid", daemon=True).start()
            threading.Thread(target=self.look, name="gpu-states", daemon=True).start()

    def stop(self) -> None:
        """End within a step; nothing waits for that."""
        self._end.set()

    @property
    def found(self) -> tuple[Xid, ...]:
        """The errors, the likeliest cause first."""
        return tuple(xid.ordered(self._found))

    async def settled(self) -> None:
        """Wait a moment for what the driver may still report; not at all where it reports nothing."""
        if self.available and not self._found:
            await asyncio.sleep(LATE)

    def run(self) -> None:
        """Watch until it is stopped, or nothing can be read any more."""
        events: NvmlEvents | None = None
        kernel: KernelLog | None = None
        with contextlib.suppress(Exception):  # NVMLError has no class before pynvml is loaded
            events = self._nvml(self._buses)
        with contextlib.suppress(OSError):
            kernel = self._kernel()
        self.available = bool(events or kernel)
        while (events or kernel) and not self._end.is_set():
            try:
                self._add(wait_for(STEP, events))
            except Exception as error:  # NVML is of no more use, such as after the driver was unloaded
                log.info(f"note: NVML reports no more errors of the GPUs ({error}).")
                events = None
            for each in kernel.read() if kernel else ():
                self._add(each)
        with contextlib.suppress(Exception):
            if events:
                events.close()
            if kernel:
                kernel.close()

    def look(self) -> None:
        """Read the states of the GPUs until it is stopped, or NVML does not answer any more."""
        with contextlib.suppress(Exception):
            states = self._states(self._buses)
            while not self._end.wait(LOOK):
                for each in states.worse():
                    self._add(each)

    def _add(self, found: Xid | None) -> None:
        if found is None or found.bus not in self._buses | {UNKNOWN}:
            return
        with self._adding:
            if found in self._found or len(self._found) >= KEPT:
                return
            self._found.append(found)
        log.warning(f"the driver reports {found.clause()}.")
        self._note(found)
