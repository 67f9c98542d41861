"""What this host has against a container that is to come: its runtime, its name, its bundle, its network."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from migrate.inventory import ports
from migrate.pb.session_pb2 import Container, ProcessInventory, Refusal
from migrate.processes import network, oci


def refusals(process: ProcessInventory) -> Iterator[Refusal]:
    """Yield every reason against the container of *process*.

    We are in its network namespace if that is here.
    """
    container = process.container
    yield from _runtime(container)
    yield from _bundle(container)
    yield from _network(process)


def _runtime(container: Container) -> Iterator[Refusal]:
    runtime, name = container.runtime, container.name
    here = oci.version(runtime)
    if not here:
        yield Refusal(
            code="no-runtime",
            text=f"{runtime} is not installed there",
            remedy=f"Install it, in the version of the origin: {container.version}.",
        )
    elif here != container.version:
        yield Refusal(
            code="runtime-version",
            text=f"its {runtime} is another one: {here}, and {container.version} at the origin",
            remedy="Install the same version on both hosts.",
        )
    if (home := oci.home(runtime, name)).exists():
        yield Refusal(
            code="container-taken",
            text=f"{runtime} has a container {name} there already ({home})",
            remedy=f"Remove it there if it is not needed: {runtime} delete {name}",
        )
    if (cgroups := oci.cgroups()) != container.cgroups:
        yield Refusal(
            code="cgroup-version",
            text=f"it has cgroups of {cgroups}, and the origin of {container.cgroups}",
            remedy="Boot both hosts with the same hierarchy (systemd.unified_cgroup_hierarchy=1 or =0).",
        )


def configuration(container: Container) -> Path:
    """Where its runtime reads what it is."""
    return Path(container.bundle) / "config.json"


def _bundle(container: Container) -> Iterator[Refusal]:
    path = configuration(container)
    try:
        here = path.read_bytes()
    except FileNotFoundError:
        return  # it comes along
    except OSError as error:
        yield Refusal(
            code="bundle", text=f"{path} cannot be read there: {error.strerror}", remedy="Look at it."
        )
        return
    if _but_cgroup(here) != _but_cgroup(container.configuration):
        yield Refusal(
            code="bundle-differs",
            text=f"{path} is there already, and says something else: it is another container's, or was changed",
            remedy="Remove that bundle there, or make its config.json the same as here, but for cgroupsPath.",
        )


def _but_cgroup(content: bytes) -> Any:
    """What it says; where its cgroup is, is each host's own business."""
    try:
        said = json.loads(content)
        said.get("linux", {}).pop("cgroupsPath", None)
    except (ValueError, AttributeError):
        return content
    return said


def _network(process: ProcessInventory) -> Iterator[Refusal]:
    path, wanted = process.container.network, ports.service_addresses(process)
    if not path:
        return
    if not network.is_there(path):
        name = os.path.basename(path)  # noqa: PTH119
        yield Refusal(
            code="no-network",
            text=f"there is no network namespace {path}, in which the container is to run",
            remedy=f"Make it there, with the interfaces that it has here, up, and without {', '.join(wanted)}:"
            f" ip netns add {name}; ip link add ... netns {name}; ip -n {name} link set ... up",
        )
        return
    there = {name for _, name in socket.if_nameindex()} - {"lo"}
    if wanted and not there:
        yield Refusal(
            code="no-network",
            text=f"the network namespace {path} has no interface there",
            remedy="Give it the interfaces that it has at the origin, up, and without the container's addresses.",
        )
