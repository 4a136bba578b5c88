"""A GPU that fails while vLLM serves: no more traffic, what to do, and what to tell Kubernetes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from ...healthcheck.state import GpuFault, Health
from ..vllm_log.exit_cause import ExitReason
from ..vllm_log.known_failures import REPORT
from ..vllm_log.xid import Xid

TAINT = "dsv4/gpu-fault"
log = logging.getLogger(__name__)


def noting(health: Health, environ: Mapping[str, str]) -> Callable[[Xid], None]:
    """Return what notes an error after which a GPU does not work as before."""

    def note(xid: Xid) -> None:
        if xid.serves:
            return
        remedy = xid.remedy.format(report=REPORT)
        clause = xid.clause()
        health.gpu_faults = (*health.gpu_faults, GpuFault(xid.bus, xid.number, f"{clause}. {remedy}"))
        traffic = "it gets no more traffic" if health.gpu_faults_matter else "it stays ready (supervise.gpu-faults)"
        log.warning(f"a GPU of this replica has failed, so {traffic}. {remedy} {in_kubernetes(xid, environ)}".strip())

    return note


def in_kubernetes(xid: Xid, environ: Mapping[str, str]) -> str:
    """Return how to keep other pods off the node; empty elsewhere. It needs rights that a replica does not have."""
    if "KUBERNETES_SERVICE_HOST" not in environ:
        return ""
    node = f"$(kubectl get pod {environ.get('HOSTNAME', 'POD')} -o jsonpath={{.spec.nodeName}})"
    taint = f"kubectl taint nodes {node} {TAINT}=xid-{xid.number}:NoSchedule"
    return f"Until that is done, keep pods off this node: `{taint}`."


def with_faults(reason: ExitReason, health: Health) -> ExitReason:
    """Add the faults to a reason that does not name them, such as a stop."""
    if reason.xids or not health.gpu_faults:
        return reason
    first = health.gpu_faults[0]
    xids = tuple(Xid(fault.xid, fault.gpu) for fault in health.gpu_faults)
    return reason.then(f"A GPU had failed: {first.sentence}", xids=xids)
