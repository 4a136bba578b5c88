"""Run `dsv4 up`: bring the containers to the target deployment, leaving those that match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import HostError
from .containers import BALANCER, GPUS, NETWORK, balancer_settings, name_of, replica_settings
from .daemon import CONFIGURATION, ROLE, Daemon, Log, engine_errors, is_ours
from .deployment import Deployment
from .down import stop
from .wait import until_ready


def up(daemon: Daemon, deployment: Deployment, log: Log, *, wait: bool = True, watch: Log | None = None) -> None:
    """
    Start what is missing, replace what has other settings, remove replicas in excess.

    A running replica is replaced only when those replaced before it are ready, so that the others carry the traffic.
    `watch` gets the progress every second (`wait.until_ready`).
    Raise HostError on a conflict with other containers, or when a replica does not become ready.
    """
    _Rollout(daemon, deployment, log, watch).run(wait=wait)


@dataclass
class _Rollout:
    daemon: Daemon
    deployment: Deployment
    log: Log
    watch: Log | None

    def run(self, *, wait: bool) -> None:
        names = [*map(name_of, range(len(self.deployment.groups))), BALANCER]
        self._refuse_foreign(names)
        images = self._image(), self._balancer_image()
        self._make_network()
        bodies = self._bodies(*images)
        present = self.daemon.ours()
        excess = [container for name, container in present.items() if name not in bodies]
        stop(excess, self.log)
        fresh: list[str] = []
        for name, body in bodies.items():
            container = self.daemon.ours().get(name)
            if container is not None and _same(container, body):
                self.log(f"{name} is unchanged: it already runs with these settings")
                continue
            conflicting = self._conflicting(name, body)
            if fresh and any(other.status == "running" for other in conflicting) and name != BALANCER:
                until_ready(self.daemon, fresh, self.log, self.watch)
            stop(conflicting, self.log)
            self._start(name, body)
            if name != BALANCER:
                fresh.append(name)
        if wait:
            until_ready(self.daemon, names, self.log, self.watch)
            self.log(f"every replica is ready; the API is on port {self.deployment.port}")

    def _bodies(self, image: str, balancer: str) -> dict[str, dict[str, Any]]:
        deployment, podman = self.deployment, self.daemon.podman
        replicas = {
            name_of(i): replica_settings(deployment, i, image, podman=podman) for i in range(len(deployment.groups))
        }
        return {**replicas, BALANCER: balancer_settings(deployment, balancer)}

    def _image(self) -> str:
        name = self.deployment.image
        if identity := self.daemon.image(name):
            return identity
        raise HostError(
            f"Image {name} is not on this host; build it (docker build -t {name} .), load it from a bundle"
            " (docker load --input images/dsv4-serve.tar), or name another with --image."
        )

    def _balancer_image(self) -> str:
        name = self.deployment.balancer_image
        if identity := self.daemon.image(name):
            return identity
        self.log(f"fetching {name}")
        with engine_errors(
            f"Image {name} is not on this host and cannot be fetched; load it from a bundle, or name another with"
            " --balancer-image"
        ):
            return str(self.daemon.client.images.pull(name).id)

    def _refuse_foreign(self, names: Sequence[str]) -> None:
        for name, container in self.daemon.containers().items():
            if name in names and not is_ours(container):
                raise HostError(
                    f"Container {name} exists, but `dsv4 up` did not create it; remove it with `docker compose"
                    f" down` if compose did, else with `docker rm --force {name}`."
                )

    def _make_network(self) -> None:
        """Make the network unless it exists."""
        networks = self.daemon.client.networks
        with engine_errors(f"Network {NETWORK} cannot be created"):
            if not any(network.name == NETWORK for network in networks.list(names=[NETWORK])):
                networks.create(NETWORK, driver="bridge", labels={ROLE: "network"})

    def _conflicting(self, name: str, body: Mapping[str, Any]) -> list[Any]:
        """Return the container of this name, and those that hold GPUs that it needs."""
        gpus = _gpus(body["Labels"])
        return [each for other, each in self.daemon.ours().items() if other == name or gpus & _gpus(each.labels)]

    def _start(self, name: str, body: dict[str, Any]) -> None:
        gpus = body["Labels"].get(GPUS)
        self.log(f"starting {name}{f' on GPUs {gpus}' if gpus else ''}")
        with engine_errors(f"{name} cannot be started"):
            made = self.daemon.client.api.create_container_from_config(body, name)
            try:
                self.daemon.client.api.start(made["Id"])
            except Exception:
                self.daemon.client.api.remove_container(made["Id"], force=True)
                raise


def _same(container: Any, body: Mapping[str, Any]) -> bool:
    return bool(container.status == "running" and container.labels[CONFIGURATION] == body["Labels"][CONFIGURATION])


def _gpus(labels: Mapping[str, str]) -> set[str]:
    return set(filter(None, labels.get(GPUS, "").split(",")))
