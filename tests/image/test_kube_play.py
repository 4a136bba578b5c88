"""
The pod of deploy/kubernetes/overlays/demo, started by podman: it loads, hangs and drains as its manifest says.

podman reads the pod, its volumes, limits and probes. What a kubelet does beside that is done here, by the manifest's
numbers: asking the probes on time, the pause of preStop, and SIGTERM with what is left of the grace.
"""

from __future__ import annotations

import base64
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import yaml

from dsv4_serve.entrypoint.supervision_settings import Supervise
from tests.support.program import need

from .conftest import ROOT, Container, Report, free_port, podman
from .fleet import SIGNAL

pytestmark = pytest.mark.slow
OVERLAY = ROOT / "deploy/kubernetes/overlays/demo"
NAME = "dsv4-pod-replica"
KEY = "a-key-of-the-tests"
START = 600.0
SHIPPED = Supervise()
LIVE_GRACE = SHIPPED.live_grace
UNREADY = SHIPPED.idle_canary_every + SHIPPED.ready_grace + 20.0  # seconds; the probes take their time too


@dataclass(frozen=True)
class Pod:
    """The pod that runs, and what its manifest says of its one container."""

    container: Container
    health_port: int
    grace: float
    spec: dict[str, Any]

    def probe(self, name: str) -> bool:
        """Ask a probe once, as the manifest words it."""
        probe = self.spec[f"{name}Probe"]
        if "exec" in probe:
            return podman("exec", NAME, *probe["exec"]["command"], check=False).returncode == 0
        url = f"http://127.0.0.1:{self.health_port}{probe['httpGet']['path']}"
        try:
            return httpx.get(url, timeout=probe["timeoutSeconds"], trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def until(self, name: str, expected: bool, seconds: float) -> tuple[float, int]:
        """Ask on time until a probe says `expected` often enough; return the seconds, and how often it said the other."""
        probe, began, others = self.spec[f"{name}Probe"], time.monotonic(), 0
        in_a_row, enough = 0, 1 if expected else probe["failureThreshold"]
        while time.monotonic() - began < seconds:
            said = self.probe(name)
            in_a_row, others = (in_a_row + 1, others) if said == expected else (0, others + 1)
            if in_a_row == enough:
                return time.monotonic() - began, others
            time.sleep(probe["periodSeconds"])
        log = podman("logs", "--tail=30", NAME, check=False)
        pytest.fail(f"{name} probe {expected}: not in {seconds:.0f} s\n{log.stdout}{log.stderr}")

    def stream(self, tokens: int) -> str:
        """Return the last line of one streamed completion."""
        body = {"prompt": "Once", "max_tokens": tokens, "stream": True, "ignore_eos": True}
        headers = {"Authorization": f"Bearer {KEY}"}
        url = f"{self.container.url}/v1/completions"
        answer = httpx.post(url, json=body, headers=headers, timeout=120, trust_env=False)
        return answer.text.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def pod() -> Iterator[Pod]:
    need("podman", "PODMAN")
    kubectl = need("kubectl", "KUBECTL")
    rendered = subprocess.run([kubectl, "kustomize", OVERLAY], capture_output=True, text=True, check=True).stdout
    kinds = {document["kind"]: document for document in yaml.safe_load_all(rendered)}
    template = kinds["Deployment"]["spec"]["template"]
    (spec,) = template["spec"]["containers"]
    if podman("image", "exists", spec["image"], check=False).returncode:
        pytest.skip(f"there is no image {spec['image']}: tools/image/build.sh cpu")
    name = template["spec"]["volumes"][-1]["secret"]["secretName"]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
    secret["data"] = {"api-key": base64.b64encode(KEY.encode()).decode()}
    port, health_port = free_port(), free_port()
    published = [f"--publish=127.0.0.1:{host}:{inner}" for host, inner in ((port, 8000), (health_port, 8001))]
    play = ["podman", "kube", "play", "--network=bridge", *published, "-"]
    manifest = f"{rendered}---\n{yaml.safe_dump(secret)}"
    try:
        done = subprocess.run(play, input=manifest, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        yield Pod(Container(NAME, port), health_port, template["spec"]["terminationGracePeriodSeconds"], spec)
    finally:
        subprocess.run(
            ["podman", "kube", "down", "--force", "-"], input=manifest, capture_output=True, text=True, check=False
        )


def test_it_loads_within_its_startup_probe_and_is_ready_soon_after(pod: Pod, report: Report) -> None:
    began = time.monotonic()
    assert not pod.probe("startup")
    assert not pod.probe("readiness")
    _, failures = pod.until("startup", expected=True, seconds=START)
    assert failures < pod.spec["startupProbe"]["failureThreshold"]
    ready, _ = pod.until("readiness", expected=True, seconds=10)
    assert pod.probe("liveness")
    assert pod.stream(8) == "data: [DONE]"
    report(
        f"load: started after {time.monotonic() - began:.0f} s, {failures} startup probes failed, ready {ready:.1f} s later"
    )


def test_podman_asks_the_same_probes(pod: Pod) -> None:
    for _ in range(2):  # the first success ends the startup probe
        podman("healthcheck", "run", NAME)


def test_its_container_is_what_the_manifest_says(pod: Pod) -> None:
    status = pod.container.run("cat", "/proc/1/status").stdout
    for line in ("Uid:\t2000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"):
        assert line in status
    assert pod.container.run("touch", "/usr/x", check=False).returncode != 0
    kind, size = pod.container.run("df", "--output=fstype,size", "/dev/shm").stdout.split()[-2:]
    assert kind == "tmpfs"
    assert int(size) >= 2**20  # KiB; podman 5.4 leaves the sizeLimit of a memory volume out


def test_a_hung_engine_is_not_ready_then_ended_before_the_liveness_probe_would_kill_it(
    pod: Pod, report: Report
) -> None:
    restarts = int(podman("container", "inspect", "--format={{.RestartCount}}", NAME).stdout)
    pod.container.run("python", "-c", SIGNAL, str(int(signal.SIGSTOP)))
    began = time.monotonic()
    pod.until("readiness", expected=False, seconds=UNREADY)
    unready = time.monotonic() - began
    refused = 0
    while int(podman("container", "inspect", "--format={{.RestartCount}}", NAME).stdout) == restarts:
        refused = 0 if pod.probe("liveness") else refused + 1
        assert time.monotonic() - began < LIVE_GRACE + 60
        assert refused < pod.spec["livenessProbe"]["failureThreshold"]
        time.sleep(pod.spec["livenessProbe"]["periodSeconds"])
    ended = time.monotonic() - began
    assert "dsv4: hung (exit status 83)" in podman("logs", NAME).stderr
    pod.until("startup", expected=True, seconds=START)
    pod.until("readiness", expected=True, seconds=10)
    report(
        f"hang: not ready after {unready:.1f} s, ended and started over after {ended:.0f} s ({refused} liveness probes"
        f" failed), ready after {time.monotonic() - began:.0f} s"
    )


def test_a_drain_finishes_every_stream_within_the_grace(pod: Pod, report: Report) -> None:
    pause = pod.spec["lifecycle"]["preStop"]["sleep"]["seconds"]
    with ThreadPoolExecutor(20) as clients:
        early = [clients.submit(pod.stream, 200) for _ in range(8)]
        began = time.monotonic()
        time.sleep(pause)
        assert pod.probe("readiness")  # as long as preStop waits, who comes late is served
        late = [clients.submit(pod.stream, 200) for _ in range(8)]
        time.sleep(0.5)
        stopping = clients.submit(podman, "stop", f"--time={pod.grace - pause:.0f}", NAME)
        unready, _ = pod.until("readiness", expected=False, seconds=10)
        assert [one.result() for one in (*early, *late)] == ["data: [DONE]"] * 16
        stopping.result()
    ended = time.monotonic() - began
    assert pod.container.state()["ExitCode"] == 0
    assert ended < pod.grace
    report(
        f"drain: 16 of 16 streams whole, not ready {unready:.1f} s after SIGTERM, ended after {ended:.0f} s of {pod.grace}"
    )
