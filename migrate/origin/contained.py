"""A container that is to be moved: found by its name, and described for the destination."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from migrate.checks import podman as of_podman
from migrate.errors import CriuError, Ended, MigrateError, Reason, Refused
from migrate.files.written import Written
from migrate.inventory import of_container
from migrate.pb import session_pb2 as pb
from migrate.processes import network, oci, podman
from migrate.processes.oci import Container
from migrate.processes.podman import Podman
from migrate.request import AUTO, SWITCH, Request
from migrate.runtime import Runtime
from migrate.runtime.oci import Oci
from migrate.runtime.podman import LAYER, SHM, secrets_of
from migrate.runtime.podman import Podman as ByPodman
from migrate.switch import interface, netlink


def resolved(request: Request) -> tuple[Request, Container | None]:
    """*request* with the PID of the container that it names, whose root file system goes along; and that container.

    :raises Refused: there is none, or no one of that name, or what was asked for does not go with it.
    """
    if not request.named.container:
        return request, None
    found = _found(request.named.container)
    if isinstance(found, Podman):  # its files are in a layer of podman's, which goes in its own way
        if request.switch not in (SWITCH, AUTO):
            text = f"--switch {request.switch} is not for a container of podman, whose network moves with it"
            raise _refused("switch-of-podman", text, "Leave --switch out.")
        return dataclasses.replace(request, pid=found.pid, switch=interface.KIND), found
    trees = tuple(dict.fromkeys((*request.along.copy_trees, root(found))))
    along = dataclasses.replace(request.along, copy_trees=trees)
    return dataclasses.replace(request, pid=found.pid, along=along), found


def _found(word: str) -> Container:
    name, _, runtime = word.partition("@")
    wanted = [runtime] if runtime else [podman.NAME, *oci.RUNTIMES]
    installed = oci.known(wanted)
    if not installed:
        text = f"{runtime or ', '.join(wanted)} cannot be found on PATH"
        raise _refused("no-runtime", text, "Install it, or name the process by its PID.")
    try:
        several = [one for each in installed if (one := _of(each, name)) is not None]
    except (OSError, ValueError, KeyError) as error:
        raise MigrateError(f"the bundle of container {name} cannot be read: {error}") from error
    if not several:
        known = ", ".join(installed)
        raise _refused(
            "no-such-container",
            f"no container {name} of {known} runs",
            f"Look for its name: {' list; '.join(installed)} list (as root, with the usual --root).",
        )
    if len(several) > 1:
        choice = " or ".join(f"--container {name}@{one.runtime}" for one in several)
        raise _refused(
            "container-twice",
            f"{' and '.join(one.runtime for one in several)} have a container {name}",
            f"Say which: {choice}.",
        )
    return several[0]


def _of(runtime: str, name: str) -> Container | None:
    """The container *name* of *runtime*. What podman has by runc or crun is podman's, whoever asks.

    :raises OSError, ValueError, KeyError: it cannot be looked at.
    """
    if runtime == podman.NAME:
        return podman.find(name)
    found = oci.find(runtime, name)
    return None if found is not None and podman.is_its(found.configuration) else found


def _refused(code: str, text: str, remedy: str) -> Refused:
    return Refused([Reason(code, "origin", text, remedy)])


def root(container: Container) -> str:
    """Where its root file system is on this host."""
    path = str((json.loads(container.configuration).get("root") or {}).get("path", "rootfs"))
    return os.path.normpath(os.path.join(container.bundle, path))  # noqa: PTH118


def files(container: Container | None, there: pb.HostInventory) -> list[pb.File]:
    """What goes along beside its root file system."""
    if isinstance(container, Podman):
        return []
    wanted = container is not None and there.lacks_configuration
    return [pb.File(path=f"{container.bundle}/config.json")] if container and wanted else []


def describe(process: pb.ProcessInventory, container: Container, kept: Runtime) -> None:
    """Say in *process* that it is a container's, and have its runtime say what CRIU is to be told of it.

    What speaks against moving it is found by the checks.
    """
    said = process.container
    said.runtime, said.name, said.version = container.runtime, container.name, container.version
    said.bundle, said.network, said.configuration = (
        container.bundle,
        container.network,
        container.configuration,
    )
    said.cgroups = oci.cgroups()
    said.joined = network.is_that_of(container.pid, container.network) if container.network else True
    try:
        if isinstance(container, Podman):
            assert isinstance(kept, ByPodman)
            _describe(said, container)
            said.archive = b"-"  # whatever comes of it, it is podman's
            said.archive = kept.ask(container)
        else:
            assert isinstance(kept, Oci)
            said.descriptors = kept.ask(container.name)
    except CriuError as error:
        said.problem = str(error)


def _describe(said: pb.Container, container: Podman) -> None:
    said.id, said.by, said.storage = container.id, container.by, container.storage
    said.image, said.image_name, said.sends_image = container.image, container.image_name, True
    said.networks.extend(container.networks)
    said.addresses.extend(container.addresses)
    said.hardware.extend(podman.hardware(container))


def reasons(container: Container | None, archive: bytes) -> list[Reason]:
    """What its engine says of it that stands in the way, and is not in its config.json.

    :param archive: what podman writes of it; b"-": nothing.
    """
    if not isinstance(container, Podman):
        return []
    try:
        secrets = secrets_of(archive)
        return list(of_podman.reasons(container.said, podman.upper(container.pid), secrets))
    except (OSError, AttributeError, TypeError) as error:
        raise MigrateError(f"what podman says of {container.name} makes no sense: {error}") from error


def notes(container: Container | None, there: pb.HostInventory) -> list[str]:
    """What the user should know, although it is no reason to refuse."""
    if isinstance(container, Podman) and there.lacks_image:
        return [f"the image {container.image_name} is missing there, and is sent along"]
    return []


def written(container: Container | None) -> Written | None:
    """What it has written to its own files, of which nothing is packed; None: they go in another way.

    :raises MigrateError: it has ended.
    """
    if not isinstance(container, Podman):
        return None
    try:
        return Written(podman.upper(container.pid), root(container))
    except OSError as error:
        raise Ended(f"container {container.name} has ended") from error


def mapped(container: Container, tasks: Iterable[pb.Task]) -> Collection[str]:
    """Files, by their paths on this host, that its *tasks* write through shared memory now."""
    return of_container.mapped([one.pid for one in tasks], root(container))


def pack(its: Written | None, container: Container | None, shared: Collection[str], images: Path) -> None:
    """It is frozen: write beside CRIU's *images* what it has written to its own files since.

    :param shared: files, by their paths on this host, whose times do not tell whether they have changed.
    :raises MigrateError: it cannot be read.
    """
    if its is not None and container is not None:
        with (images / LAYER).open("wb") as layer, (images / SHM).open("wb") as shm:
            its.pack(layer, shared)
            Written("", f"{container.bundle}/shm").pack(shm)


def addresses(container: Container) -> list[str]:
    """All those in its own network namespace, in which we are: whoever comes to them comes to it.

    :raises SwitchError: they cannot be listed.
    """
    if not container.network:
        return []
    with netlink.route("look at the container's addresses"):
        found = [ipaddress.ip_address(ip) for ip, _ in netlink.places()]
    return [str(one) for one in found if not (one.is_loopback or one.is_link_local)]


def at_home(here: pb.HostInventory, there: pb.HostInventory, container: Container | None) -> None:
    """In a network namespace of a container no address is one that a host or a session needs."""
    if container and container.network:
        for host in (here, there):
            host.ClearField("own_addresses")
            host.ClearField("ssh_addresses")
