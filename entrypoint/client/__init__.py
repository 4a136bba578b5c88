"""A client for the API of a running vLLM."""

import sys

# With click and rich installed, httpx imports them for a command line of its own: 6 MiB and 70 ms (0.28.1, 2026-11-29).
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
