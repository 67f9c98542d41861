"""All reasons why a container cannot be moved, by what its configuration says. Pure."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

from migrate.checks import containers
from migrate.checks.subject import Subject
from migrate.pb.session_pb2 import Container, HostInventory, Interface, ProcessInventory, Refusal

NETWORK = "/run/netns/web"
OWN = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]


def configuration(**more: Any) -> dict[str, Any]:
    """One that can be moved, with *more*."""
    said: dict[str, Any] = {
        "root": {"path": "rootfs"},
        "process": {"terminal": False},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [*OWN, {"type": "network", "path": NETWORK}]},
    }
    return said | more


def subject(said: dict[str, Any], **fields: Any) -> Subject:
    """A container of runc's that is described so."""
    given = {"joined": True, "network": NETWORK} | fields
    made = Container(
        runtime="runc", name="web", bundle="/srv/web", configuration=json.dumps(said).encode(), **given
    )
    return Subject(ProcessInventory(container=made), HostInventory(), HostInventory())


def codes(asked: Subject) -> list[str]:
    """Of all reasons, each of which has a remedy."""
    found = [*containers.described(asked), *containers.there(asked), *containers.loopback(asked)]
    assert all(one.text and one.remedy for one in found)
    return [one.code for one in found]


def test_one_that_can_be_moved() -> None:
    assert codes(subject(configuration())) == []
    host = configuration(linux={"namespaces": OWN})
    assert codes(subject(host, network="")) == []


def test_what_is_no_container_has_no_reason() -> None:
    assert codes(Subject(ProcessInventory(), HostInventory(), HostInventory())) == []


def linux(*namespaces: dict[str, str], **more: Any) -> dict[str, Any]:
    """Its own namespaces and these."""
    return configuration(linux={"namespaces": [*OWN, *namespaces], **more})


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (configuration(process={"terminal": True}), "container-terminal"),
        (configuration(root={"path": "rootfs", "readonly": True}), "container-readonly"),
        (configuration(process={"apparmorProfile": "some"}), "container-label"),
        (configuration(process={"selinuxLabel": "some"}), "container-label"),
        (configuration(hooks={"prestart": [{"path": "/bin/true"}], "poststop": []}), "container-hooks"),
        (linux({"type": "network", "path": NETWORK}, devices=[{"path": "/dev/fuse"}]), "container-devices"),
        (linux({"type": "network"}), "container-network"),
        (linux({"type": "user"}), "container-rootless"),
        (linux({"type": "cgroup", "path": "/proc/1/ns/cgroup"}), "container-shares"),
        (configuration(linux={"namespaces": OWN[1:]}), "container-shares"),
        (
            configuration(mounts=[{"destination": "/data", "type": "bind", "source": "/srv/data"}]),
            "container-volumes",
        ),
        (
            configuration(mounts=[{"destination": "/data", "type": "tmpfs", "options": ["rbind"]}]),
            "container-volumes",
        ),
    ],
)
def test_what_does_not_go_along(said: dict[str, Any], code: str) -> None:
    assert codes(subject(said)) == [code]


def test_all_at_once() -> None:
    said = configuration(process={"terminal": True}, root={"readonly": True})
    asked = subject(said, joined=False, problem="no CRIU")
    asked.destination.refusals.append(Refusal(code="no-runtime", text="none", remedy="install it"))
    wanted = ["no-checkpoint", "container-network", "container-terminal", "container-readonly", "no-runtime"]
    assert codes(asked) == wanted


@pytest.mark.parametrize("content", [b"", b"[]", b'{"linux": 3}', b"\xff"])
def test_what_makes_no_sense(content: bytes) -> None:
    asked = subject({})
    asked.process.container.configuration = content
    assert codes(asked) == ["bundle"]


def test_its_interface_is_there_with_another_hardware_address() -> None:
    ip = ipaddress.ip_address("192.0.2.7")
    here = Interface(name="eth0", up=True, addresses=["192.0.2.7/24"], hardware="02:00:00:00:00:60")

    def found(*there: Interface) -> list[str]:
        asked = subject(configuration())
        asked.origin.interfaces.append(here)
        asked.destination.interfaces.extend(there)
        return [one.code for one in containers.at_its_interface(asked, ip)]

    for there in ([], [Interface(name="eth0")], [Interface(name="eth1", up=True)]):
        assert found(*there) == ["address-no-network"]
    assert found(here) == ["hardware-taken"]
    assert found(Interface(name="eth0", up=True, hardware="02:00:00:00:00:61")) == []
    assert found(Interface(name="eth0", up=True)) == []


def test_the_loopback_interface_is_up_there() -> None:
    asked = subject(configuration())
    asked.destination.interfaces.append(Interface(name="eth0", up=True))
    asked.destination.interfaces.append(Interface(name="lo"))
    assert codes(asked) == ["no-loopback"]
    asked.destination.interfaces[1].up = True
    assert codes(asked) == []
