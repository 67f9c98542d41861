"""Whether a container can be moved, by what its configuration says and its runtime on either host. Pure.

Source: https://github.com/opencontainers/runtime-spec config.md and config-linux.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from migrate.checks import interfaces
from migrate.checks.subject import DESTINATION, ORIGIN, Subject, names
from migrate.errors import Reason
from migrate.pb.session_pb2 import HostInventory, Interface

#: Of these each container has one of its own, which CRIU makes again.
_OWN = ("pid", "mount", "ipc", "uts")
#: Mounts of these kinds are made by the kernel alone, or their content goes in CRIU's images.
_MADE_ANEW = ("proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2")


def there(subject: Subject) -> Iterator[Reason]:
    """What the destination has said against it."""
    for one in subject.destination.refusals:
        yield Reason(one.code, DESTINATION, one.text, one.remedy)


def loopback(subject: Subject) -> Iterator[Reason]:
    """In a network namespace that was just made not even the loopback interface is up, and the kernel is told what
    it has to know of a connection by what comes in there."""
    if subject.process.container.archive:
        return  # podman makes it
    path = subject.process.container.network
    up = {one.name for one in subject.destination.interfaces if one.up}
    if path and subject.destination.interfaces and "lo" not in up:
        text = f"the loopback interface is not up in the network namespace {path}"
        yield Reason("no-loopback", DESTINATION, text, f"ip -n {_name(path)} link set lo up")


def at_its_interface(subject: Subject, ip: interfaces.Ip) -> Iterator[Reason]:
    """A network namespace of a container has the same interfaces on both hosts."""
    device, path = interfaces.device_at(subject.origin, ip), subject.process.container.network
    here, there = _named(subject.origin, device), _named(subject.destination, device)
    if not there.up:
        text = (
            f"no interface {device} is up in the network namespace {path}, for the container's address {ip}"
        )
        remedy = (
            f"Make it there as it is here, without that address: ip -n {_name(path)} link set {device} up"
        )
        yield Reason("address-no-network", DESTINATION, text, remedy)
    elif there.hardware and there.hardware == here.hardware:
        text = f"{device} in {path} has the hardware address {here.hardware} there, too, and a bridge knows it once"
        remedy = f"Give it one of its own: ip -n {_name(path)} link set {device} address 02:..."
        yield Reason("hardware-taken", DESTINATION, text, remedy)


def _named(host: HostInventory, device: str) -> Interface:
    return next((one for one in host.interfaces if one.name == device), Interface())


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def described(subject: Subject) -> Iterator[Reason]:
    """What its configuration says that does not go along, and whether its runtime can checkpoint it."""
    container = subject.process.container
    if not container.name:
        return
    if container.problem:
        text = f"{container.runtime} cannot checkpoint {container.name}: {container.problem}"
        yield Reason(
            "no-checkpoint", ORIGIN, text, "Look whether it is built with CRIU, and at `criu check`."
        )
    try:
        said = json.loads(container.configuration)
        yield from _reasons(said, container.joined, container.bundle if container.archive else "")
    except (ValueError, AttributeError, TypeError) as error:
        text = f"the config.json of {container.name} makes no sense: {error}"
        yield Reason("bundle", ORIGIN, text, "Look at it.")


def _reasons(said: Mapping[str, Any], joined: bool, podmans: str) -> Iterator[Reason]:
    """:param podmans: the directory of podman's for this container, which says of its mounts itself; or ""."""
    process, linux = said.get("process") or {}, said.get("linux") or {}
    yield from _namespaces(linux.get("namespaces") or (), joined)
    if process.get("terminal"):
        text = "the container has a terminal"
        yield Reason("container-terminal", ORIGIN, text, 'Start it without: "terminal": false, and run -d.')
    if (said.get("root") or {}).get("readonly"):
        text = (
            "the container's root file system is read-only, and CRIU needs a place in it to make mount points"
        )
        yield Reason(
            "container-readonly", ORIGIN, text, 'Say "readonly": false of its root, and start it again.'
        )
    labels = {"apparmorProfile": "AppArmor profile", "selinuxLabel": "SELinux label"}
    for what, found in ((words, process.get(name)) for name, words in labels.items()):
        if found:
            text = f"the container has the {what} {found}, which is not carried"
            yield Reason("container-label", ORIGIN, text, "Start it without.")
    if hooks := sorted(kind for kind, some in (said.get("hooks") or {}).items() if some):
        text = f"the container has hooks ({names(hooks)}), which would run again on the destination"
        yield Reason("container-hooks", ORIGIN, text, "Do by hand what they do, and start it without.")
    if devices := [str(one.get("path")) for one in linux.get("devices") or ()]:
        text = f"the container has devices of this host: {names(devices)}"
        yield Reason("container-devices", ORIGIN, text, "Start it without.")
    if not podmans:
        yield from _mounts(said.get("mounts") or ())


def _namespaces(namespaces: Iterable[Mapping[str, Any]], joined: bool) -> Iterator[Reason]:
    found = {str(one.get("type")): str(one.get("path") or "") for one in namespaces}
    if missing := [kind for kind in _OWN if kind not in found]:
        text = f"the container shares namespaces with the host: {names(missing)}"
        yield Reason("container-shares", ORIGIN, text, "Give it its own, in config.json, and start it again.")
    if shared := sorted(kind for kind, path in found.items() if path and kind != "network"):
        text = f"the container is in namespaces that others made: {names(shared)}"
        yield Reason("container-shares", ORIGIN, text, "Give it its own, without a path, and start it again.")
    if "user" in found:
        text = "the container has a user namespace, as those without root have"
        yield Reason("container-rootless", ORIGIN, text, "Run it as root, without one.")
    if "network" in found and not found["network"]:
        text = "the container's network namespace has no path in config.json, so nobody can make one for it there"
        remedy = 'Make one (ip netns add NAME), and name it: {"type": "network", "path": "/run/netns/NAME"}.'
        yield Reason("container-network", ORIGIN, text, remedy)
    elif not joined:
        text = f"the container is in another network namespace than {found.get('network')}, which config.json names"
        yield Reason("container-network", ORIGIN, text, "Start the container again.")


def _mounts(mounts: Iterable[Mapping[str, Any]]) -> Iterator[Reason]:
    bound = [
        f"{one.get('source')} on {one.get('destination')}"
        for one in mounts
        if one.get("type") not in _MADE_ANEW or {"bind", "rbind"} & {*(one.get("options") or ())}
    ]
    if bound:
        text = f"the container has mounts of this host's own, which are not carried: {names(bound)}"
        remedy = "Put what is in them into its root file system, or move it without them."
        yield Reason("container-volumes", ORIGIN, text, remedy)
