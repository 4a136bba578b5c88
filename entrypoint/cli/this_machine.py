"""The machine that this command runs on."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..machine.machine import Machine


@functools.cache
def this_machine() -> Machine:
    """Return this machine, read on first use: a command that names its hardware may never touch NVML."""
    from ..machine.machine import read_machine

    return read_machine(os.environ)
