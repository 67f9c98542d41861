"""Addresses that the user names, that the origin needs, or that nobody named; reasons that follow from others."""

from __future__ import annotations

import pytest
from inventories import SERVICE, connection, destination, listener, only, origin, process, reasons

from migrate.checks.reasons import notes, refusals
from migrate.inventory.ports import service_addresses
from migrate.pb.session_pb2 import Obstacle, TcpSocket
from migrate.request import Along

SECOND = "10.77.1.101"


def test_named_addresses_come_last_and_once() -> None:
    found = process(service_addresses=[SECOND, SERVICE])
    assert service_addresses(found) == [SERVICE, SECOND]
    found.service_addresses[:] = service_addresses(found)
    assert service_addresses(found) == [SERVICE, SECOND]


def test_named_address_is_checked_as_the_others() -> None:
    here = origin()
    reason = only(reasons(process(service_addresses=[SECOND]), here))
    assert (reason.code, reason.role) == ("address-missing", "origin")
    assert f"{SECOND}, which --address names" in reason.text
    here.interfaces[1].addresses.append(f"{SECOND}/24")
    assert reasons(process(service_addresses=[SECOND]), here) == []
    reason = only(reasons(process(service_addresses=["10.77.1.1"])))
    assert reason.code == "address-of-host"


def test_address_that_the_origin_needs() -> None:
    needed = {SERVICE: ("a route uses it", "Change the route.")}
    found = refusals(process(), origin(), destination(), Along(), needed)
    assert [(one.code, one.text, one.remedy) for one in found] == [("address-needed", *needed[SERVICE])]
    # One that cannot leave anyway is told once.
    own = process(sockets=[connection("10.77.1.1")])
    found = refusals(own, origin(), destination(), Along(), {"10.77.1.1": ("a route uses it", "x")})
    assert [one.code for one in found] == ["address-of-host"]


IDLE = (listener("0.0.0.0", 80), listener("::", 80))


def test_nothing_moves_the_clients() -> None:
    """A server that its clients cannot reach after the move is not moved, unless the user says that they can."""
    reason = only(reasons(process(sockets=IDLE)))
    assert (reason.code, reason.role) == ("address-unknown", "origin")
    assert "listens on *:80 and has no client" in reason.text
    assert "--address ADDR" in reason.remedy and "--no-address" in reason.remedy
    assert reasons(process(sockets=IDLE), no_address=True) == []
    assert reasons(process(sockets=[*IDLE, connection()])) == []
    assert reasons(process(sockets=IDLE, service_addresses=[SERVICE])) == []
    bound_only = TcpSocket(pid=100, fd=3, state=7, local_ip=bytes(4), local_port=80)
    assert reasons(process(sockets=[bound_only])) == []


def test_note_when_nothing_moves_the_clients() -> None:
    (note,) = notes(process(sockets=IDLE))
    assert "it listens on *:80 and has no client" in note
    assert notes(process(sockets=[listener("0.0.0.0", 80), connection()])) == []
    assert notes(process(sockets=[listener("0.0.0.0", 80)], service_addresses=[SECOND])) == []
    assert notes(process(sockets=[listener("127.0.0.1", 80)])) == []
    assert notes(process(sockets=[])) == []


@pytest.mark.parametrize(("namespace", "follows"), [("mnt", "foreign-mount"), ("net", "socket-namespace")])
def test_consequences_of_a_namespace_are_not_told(namespace: str, follows: str) -> None:
    other = Obstacle(code=follows, pid=100, fd=1, what="something")
    cause = Obstacle(code="namespace", pid=100, what=namespace)
    assert only(reasons(process(obstacles=[cause, other]))).code == "namespace"
    assert only(reasons(process(obstacles=[other]))).code == follows
    two = reasons(process(obstacles=[Obstacle(code="namespace", pid=100, what="ipc"), other]))
    assert {one.code for one in two} == {"namespace", follows}


def test_descriptors_of_one_thing_are_told_together() -> None:
    terminal = [Obstacle(code="terminal", pid=100, fd=fd, what="/dev/pts/3") for fd in (0, 1, 2)]
    other = Obstacle(code="terminal", pid=100, fd=7, what="/dev/pts/4")
    first, second = reasons(process(obstacles=[*terminal, other]))
    assert first.text.startswith("each of the descriptors 0, 1, 2 of ")
    assert second.text.startswith("descriptor 7 of ")


def test_missing_capabilities_are_told_once() -> None:
    here = origin(root=False, problems=["root has no CAP_NET_ADMIN here"])
    reason = only(reasons(None, here))
    assert (reason.code, reason.role) == ("host-problem", "origin")
    assert "root of the whole host" in reason.remedy
    found = reasons(None, None, destination(root=False, problems=["the interfaces cannot be listed"]))
    assert {one.code for one in found} == {"not-root", "host-problem"}


def test_this_host_itself() -> None:
    """Its own service address is there, of course: nobody shall be told to remove it."""
    assert only(reasons(None, origin(), origin())).code == "same-host"
