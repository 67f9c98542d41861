"""Which sockets that only the kernel has would be lost with a move, and the words for them."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from inventories import PEER, SERVICE, ip

from migrate.origin import unowned
from tcpcp.kernel.diag import Entry
from tcpcp.record.ici import State

MOVING = {ip(SERVICE)}
ELSEWHERE = "10.77.1.1"


def entry(state: State, local: str = SERVICE, peer: str = PEER, peer_port: int = 4000, **more: Any) -> Entry:
    address = ipaddress.ip_address(local)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    fields: dict[str, Any] = {"inode": 0, "receive_queue": 0, "send_queue": 9, "interface": 0, "uid": 0}
    ends = {"local_ip": ip(local), "local_port": 80, "peer_ip": ip(peer), "peer_port": peer_port}
    details = {"congestion": "", "v6only": False, "md5": False, "ulp": ""}
    return Entry(**({"family": family, "state": state} | ends | fields | details | more))


def closed(*entries: Entry, **more: Any) -> list[int]:
    return list(unowned.sort(entries, MOVING, {}, **more).closed.values())


def test_what_the_kernel_still_sends() -> None:
    """The FIN counts as a byte: a client that never gets it waits for ever."""
    states = (State.FIN_WAIT1, State.CLOSING, State.LAST_ACK)
    found = closed(*(entry(state, peer_port=4000 + state, send_queue=state) for state in states))
    assert sorted(found) == sorted(states)
    assert closed(entry(State.FIN_WAIT2), entry(State.TIME_WAIT), entry(State.ESTABLISHED)) == []


def test_what_does_not_leave() -> None:
    """It is held by a descriptor, so it is moved; or its address stays, and with it all it needs."""
    assert closed(entry(State.FIN_WAIT1, inode=77)) == []
    assert closed(entry(State.FIN_WAIT1, ELSEWHERE)) == []
    mapped = entry(State.FIN_WAIT1, f"::ffff:{SERVICE}", f"::ffff:{PEER}")
    assert closed(mapped) == [9]


def test_within_the_tree() -> None:
    """On the loopback device only what the tree itself has not read is lost."""
    own = entry(State.FIN_WAIT1, "127.0.0.1", "127.0.0.1")
    ends = (ip("127.0.0.1"), 4000, ip("127.0.0.1"), 80)
    assert closed(own, inside=lambda: {ends}) == [9]
    assert closed(own) == []


def test_deferred() -> None:
    """Other listeners' requests are handshakes under way, which end by themselves."""
    quiet = entry(State.SYN_RECV)
    for bound in ((ip(SERVICE), 80), (bytes(4), 80), (bytes(16), 80)):
        assert list(unowned.sort([quiet], MOVING, {bound: 30}).deferred.values()) == [30]
    for bound in ((ip(SERVICE), 81), (ip(ELSEWHERE), 80)):
        assert not unowned.sort([quiet], MOVING, {bound: 30})


def test_those_that_go_are_not_waited_for_again() -> None:
    first = unowned.sort([entry(State.FIN_WAIT1), entry(State.FIN_WAIT1, peer_port=4001)], MOVING, {})
    now = unowned.sort([entry(State.LAST_ACK, peer_port=4001), entry(State.CLOSING, peer_port=5)], MOVING, {})
    assert [ends[3] for ends in first.still(now).closed] == [4001]


def test_words() -> None:
    waiting = {(ip(SERVICE), 80): 31}
    entries = [
        entry(State.FIN_WAIT1, send_queue=65700),
        entry(State.SYN_RECV),
        entry(State.SYN_RECV, peer_port=1),
    ]
    unsent, deferred = unowned.sort(entries, MOVING, waiting).reasons()
    assert unsent.text == (
        "1 connection that the process has closed has 64.2 KiB that its other end has not taken yet"
        " (10.77.1.100:80 - 10.77.2.1:4000): it would be cut off"
    )
    assert deferred.text == (
        "2 clients have connected to 10.77.1.100:80 and sent nothing yet, which TCP_DEFER_ACCEPT hides from the"
        " process for up to 31 s: they would be cut off"
    )
    assert unowned.Unowned().reasons() == []


def test_a_fin_is_no_byte() -> None:
    """It is what is told where nothing else waits; where something does, it is not counted."""
    only = [entry(State.FIN_WAIT1, send_queue=1), entry(State.LAST_ACK, peer_port=1, send_queue=1)]
    (said,) = unowned.sort(only, MOVING, {}).reasons()
    assert said.text.startswith(
        "2 connections that the process has closed have an end (FIN) that their other end has"
    )
    (said,) = unowned.sort([*only, entry(State.CLOSING, peer_port=2, send_queue=100)], MOVING, {}).reasons()
    assert said.text.startswith(
        "3 connections that the process has closed have 99 bytes that their other end has"
    )
