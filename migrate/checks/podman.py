"""Whether a container of podman can be moved, by what podman says of it. Pure.

Source: man podman-container-inspect(1), podman-run(1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from migrate.checks.subject import ORIGIN, names
from migrate.errors import Reason

#: A unit of systemd's would start the container again.
_UNIT = "PODMAN_SYSTEMD_UNIT"
NOTHING: Mapping[str, str] = MappingProxyType({})


def reasons(
    said: Mapping[str, Any], upper: str, in_environment: Mapping[str, str] = NOTHING
) -> Iterator[Reason]:
    """What stands in the way at the origin.

    :param said: of `podman container inspect`. :param upper: the directory that its root is written to, or "".
    :param in_environment: secrets that are variables of its environment, by these.
    """
    host, config = said.get("HostConfig") or {}, said.get("Config") or {}
    yield from _mounts(said, host)
    if said.get("Pod") or said.get("IsInfra") or said.get("Dependencies"):
        text = "the container is in a pod, or depends on another container"
        yield Reason("container-pod", ORIGIN, text, "Run it on its own.")
    if said.get("ExecIDs"):
        text = "a program was started in the container by podman exec, and runs"
        yield Reason("container-exec", ORIGIN, text, "Wait for its end, or end it.")
    if host.get("AutoRemove"):
        text = "the container is to be removed when it ends (--rm), which podman cannot checkpoint"
        yield Reason("container-rm", ORIGIN, text, "Start it without --rm.")
    if host.get("Privileged"):
        text = "the container is privileged: it has all devices of this host"
        yield Reason("container-devices", ORIGIN, text, "Start it without --privileged.")
    if devices := [str(one.get("PathOnHost")) for one in host.get("Devices") or ()]:
        text = f"the container has devices of this host: {names(devices)}"
        yield Reason("container-devices", ORIGIN, text, "Start it without.")
    yield from _secrets(config, in_environment)
    if _checked(config.get("Healthcheck")) or _checked(config.get("StartupHealthCheck")):
        text = "the container has a healthcheck, which podman has systemd run, and does not after a restore"
        yield Reason("container-healthcheck", ORIGIN, text, "Start it with --no-healthcheck.")
    if unit := (config.get("Labels") or {}).get(_UNIT):
        text = f"the container belongs to {unit}, a unit of systemd's, which would start it again"
        yield Reason("container-unit", ORIGIN, text, "Start it by podman run.")
    yield from _network(said, host)
    if not upper or said.get("Rootfs"):
        text = "the container's root is no overlay above an image, so what it has written cannot be told"
        yield Reason(
            "container-storage", ORIGIN, text, "Have podman use the storage driver overlay, and an image."
        )


def _secrets(config: Mapping[str, Any], in_environment: Mapping[str, str]) -> Iterator[Reason]:
    secrets = [str(one.get("Name")) for one in config.get("Secrets") or ()]
    secrets += [f"{secret} as {name}" for name, secret in in_environment.items()]
    if secrets:
        text = f"the container has secrets, which do not go along: {names(secrets)}"
        remedy = "Put them into its files, or its environment by --env."
        yield Reason("container-secrets", ORIGIN, text, remedy)


def _checked(health: Mapping[str, Any] | None) -> bool:
    """Whether podman is to look how the container is; that it is not to is said in the same place."""
    test = (health or {}).get("Test") or ()
    return bool(health) and list(test)[:1] not in (["NONE"], ["none"])


def _mounts(said: Mapping[str, Any], host: Mapping[str, Any]) -> Iterator[Reason]:
    mounts = said.get("Mounts") or ()
    found = [f"{one.get('Name') or one.get('Source')} on {one.get('Destination')}" for one in mounts]
    found += [f"tmpfs on {one}" for one in host.get("Tmpfs") or ()]
    if found:
        text = f"the container has volumes, or mounts of this host's own, which are not carried: {names(found, 10)}"
        remedy = "Put what is in them into its own files, or start it without."
        yield Reason("container-volumes", ORIGIN, text, remedy)


def _network(said: Mapping[str, Any], host: Mapping[str, Any]) -> Iterator[Reason]:
    networks = (said.get("NetworkSettings") or {}).get("Networks") or {}
    if host.get("NetworkMode") != "bridge" or len(networks) != 1:
        text = f"the container's network is {host.get('NetworkMode')} ({', '.join(networks) or 'none of its own'})"
        yield Reason("container-network", ORIGIN, text, "Start it with one network, of the kind bridge.")
    if ports := [port for port, where in (host.get("PortBindings") or {}).items() if where]:
        text = f"the container has published ports ({names(ports)}), at this host's own addresses"
        yield Reason("container-ports", ORIGIN, text, "Start it without, and use its own address.")
