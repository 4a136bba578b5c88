"""vllm-router with the flags that are shipped; VLLM_ROUTER names the program, where it is not on the PATH."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil

from qualification.fleet.kubelet import kubelet
from qualification.fleet.standing import Front
from tests.support.balancer import Late, answers, free_port

ROUTER = Path(__file__).parents[2] / "deploy/kubernetes/components/router/deployment.yaml"
PLACES = {
    *("host", "port", "prometheus-host", "prometheus-port"),
    *("service-discovery", "service-discovery-namespace", "service-discovery-port", "selector"),
}
"""Flags of the manifest that say where things are: here they are elsewhere."""


def router_flags() -> dict[str, str | None]:
    """Return the flags of vllm-router in the manifest that is shipped."""
    found = re.findall(r"- --([\w-]+)(?:=(\S+))?", ROUTER.read_text())
    return {flag: value or None for flag, value in found if flag not in PLACES}


def router_program() -> str | None:
    """vllm-router as VLLM_ROUTER names it, else as it is installed, beside this Python first."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return os.environ.get("VLLM_ROUTER") or shutil.which("vllm-router", path=places)


@contextmanager
def router_before(
    addresses: list[str], port: int, health_port: int, folder: Path, variant: str = ""
) -> Iterator[Front]:
    """
    vllm-router with the flags that are shipped; `variant` is flags that replace them, as in `policy=power_of_two`.

    It is told over HTTP what Kubernetes would tell it: which replicas there are, which are ready, and which are to end.
    """
    program = router_program()
    if program is None:
        raise FileNotFoundError("no vllm-router is installed (VLLM_ROUTER names one)")
    folder.mkdir(parents=True, exist_ok=True)
    front_port, shipped_flags = free_port(), router_flags()
    changes = {name: value for name, _, value in (word.partition("=") for word in variant.split(",") if word)}
    urls = {f"http://{address}:{port}": address for address in addresses}
    argv = [program, "--port", str(front_port), "--prometheus-port", str(free_port()), "--log-level", "error"]
    argv += [
        f"--{name}" if value is None else f"--{name}={value}" for name, value in {**shipped_flags, **changes}.items()
    ]
    version = subprocess.run(
        [Path(program).with_name("python"), "-c", "import importlib.metadata as m; print(m.version('vllm-router'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    def up() -> set[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{front_port}/workers", timeout=5) as answer:
            return {urls[one["url"]] for one in json.load(answer)["workers"] if one["is_healthy"]}

    def tell(route: str, address: str) -> None:
        url = urllib.parse.quote(f"http://{address}:{port}", safe="")
        request = urllib.request.Request(f"http://127.0.0.1:{front_port}/{route}?url={url}", method="POST")
        with suppress(urllib.error.HTTPError):  # it has been told before
            urllib.request.urlopen(request, timeout=30).close()

    remove, add = partial(tell, "remove_worker"), partial(tell, "add_worker")
    with (folder / "router.log").open("ab") as out:
        process = subprocess.Popen([*argv, "--worker-urls", *urls], stdout=out, stderr=subprocess.STDOUT)
    try:
        ends = time.monotonic() + 60
        while not answers(front_port):
            if process.poll() is not None or time.monotonic() > ends:
                raise Late(f"vllm-router does not answer\n{(folder / 'router.log').read_text()[-2000:]}")
            time.sleep(0.05)
        with kubelet(addresses, health_port, remove, add):
            yield Front(
                f"vllm-router {version}",
                lambda: ("127.0.0.1", front_port),
                up,
                lambda: [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)],
                changes=tuple(f"--{name}={value}" for name, value in changes.items()),
                remove=remove,
            )
    finally:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            child.kill()
        process.kill()
        process.wait()
