"""Options of sockets that no ICI carries: what was set is read, and set again on others; nothing else is."""

from __future__ import annotations

import contextlib
import os
import socket
import struct

import pytest
from netns import Namespace

from migrate.inventory import option_values, plain_options
from migrate.inventory.option_table import ALL, OF_HOST, PLAIN, Shape
from migrate.inventory.option_values import Value
from tcpcp.criu.tree import HeldSocket

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces")

KINDS = {
    "unix": (socket.AF_UNIX, socket.SOCK_DGRAM, 0),
    "udp": (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "udp6": (socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "udplite": (socket.AF_INET, socket.SOCK_DGRAM, 136),
    "raw": (socket.AF_INET, socket.SOCK_RAW, 89),
    "raw6": (socket.AF_INET6, socket.SOCK_RAW, 89),
    "netlink": (socket.AF_NETLINK, socket.SOCK_RAW, 0),
}
TABLE = [(kind, name) for kind, (family, _, _) in KINDS.items() for name in PLAIN[family]]
#: Values to try, by shape; what the kernel takes of them says the kernel.
TRIED: dict[Shape, list[Value]] = {
    Shape.NUMBER: [0, 1, 2, 3, 100, 0x104, 0x20001000],
    Shape.BYTES: [
        struct.pack("@L", 1000),
        struct.pack("=iI", 11, 1),
        socket.inet_aton("127.0.0.1"),
        b"\3\0\0\0\0\0\0\0",
        b"\2\2\4\1" + bytes(20),
    ],
    Shape.INTERFACE: [b"lo"],
    Shape.INTERFACE_OF_NETWORK: [b"lo"],
}
#: What these kinds of sockets have not got, or this test cannot set: routes by a type that needs a mobile node.
NOT_THERE = {"IPV6_RTHDR"}


def value(sock: socket.socket, name: str) -> Value | None:
    with contextlib.suppress(OSError):
        return option_values.get(sock, ALL[name])
    return None


def change(sock: socket.socket, name: str) -> bool:
    """Set it to another value; whether there is one."""
    before = value(sock, name)
    for tried in TRIED[ALL[name].shape] if before is not None else ():
        with contextlib.suppress(OSError):
            option_values.put(sock, ALL[name], tried)
            if value(sock, name) != before:
                return True
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_socket_has_none(namespace: Namespace, kind: str) -> None:
    with socket.socket(*KINDS[kind]) as sock:
        assert plain_options.Reader().plain(sock).keys() <= OF_HOST


def test_no_tcp_socket() -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, 29, 1)
        assert plain_options.Reader().plain(sock) == {}


@pytest.mark.parametrize(("kind", "name"), TABLE, ids=[f"{kind} {name}" for kind, name in TABLE])
def test_each_is_read_and_set(namespace: Namespace, kind: str, name: str) -> None:
    with socket.socket(*KINDS[kind]) as here, socket.socket(*KINDS[kind]) as there:
        if not change(here, name):
            return  # such a socket has not got it: see the next test
        after = value(here, name)
        [found] = plain_options.read([HeldSocket(7, [(os.getpid(), here.fileno())])])
        assert found.options[name] == after
        told = plain_options.put_back([(7, found.options)], {7: (os.getpid(), there.fileno())})
        assert value(there, name) == after
        assert [one for one in told if "numbered from 0" not in one] == []


def test_each_can_be_set_on_some_socket(namespace: Namespace) -> None:
    """So that what is skipped above is no option with a wrong number."""
    found = set()
    for kind, (family, _, _) in KINDS.items():
        for name in PLAIN[family]:
            with socket.socket(*KINDS[kind]) as sock:
                if change(sock, name):
                    found.add(name)
    of_later = {"SO_PASSPIDFD", "SO_PASSRIGHTS", "SO_RCVPRIORITY", "SO_INQ"}
    assert {name for table in PLAIN.values() for name in table} - found <= NOT_THERE | of_later


def test_the_interface_travels_by_name(namespace: Namespace) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, 1)
        assert plain_options.Reader().plain(sock)["IPV6_MULTICAST_IF"] == b"lo"
        holders = {7: (os.getpid(), sock.fileno())}
        [told] = plain_options.put_back([(7, {"IPV6_MULTICAST_IF": b"gone0"})], holders)
    assert "IPV6_MULTICAST_IF is not gone0 as before" in told


def test_a_priority_that_the_type_of_service_does_not_say(namespace: Namespace) -> None:
    with socket.socket(*KINDS["udp6"]) as here, socket.socket(*KINDS["udp6"]) as there:
        here.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x10)
        here.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 0)
        [found] = plain_options.read([HeldSocket(7, [(os.getpid(), here.fileno())])])
        plain_options.put_back([(7, found.options)], {7: (os.getpid(), there.fileno())})
        assert there.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0x10
        assert there.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == 0


@pytest.mark.parametrize("numbers", [(37, 29), (37, 63), (65, 63), (65, 64), (65, 35), (64, 37), (29, 65)])
def test_time_stamps_of_both_kinds(namespace: Namespace, numbers: tuple[int, int]) -> None:
    """What was set last decides of all of them whether they are of the new kind."""
    asked = (29, 35, 37, 63, 64, 65)
    with socket.socket(*KINDS["udp"]) as here, socket.socket(*KINDS["udp"]) as there:
        for number in numbers:
            here.setsockopt(socket.SOL_SOCKET, number, 0x18 if number in (37, 65) else 1)
        [found] = plain_options.read([HeldSocket(7, [(os.getpid(), here.fileno())])])
        plain_options.put_back([(7, found.options)], {7: (os.getpid(), there.fileno())})
        assert [there.getsockopt(1, n) for n in asked] == [here.getsockopt(1, n) for n in asked]


def test_what_is_counted_is_told(namespace: Namespace) -> None:
    with socket.socket(*KINDS["udp"]) as sock:
        wanted = {"SO_ZEROCOPY": 1, "SO_TIMESTAMPING": 0x92}
        told = plain_options.put_back([(7, wanted)], {7: (os.getpid(), sock.fileno())})
    assert len(told) == 2 and "MSG_ZEROCOPY" in told[0] and "OPT_ID" in told[1]


def test_what_cannot_be_set_is_told() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        holders = {7: (os.getpid(), sock.fileno())}
        told = plain_options.put_back(
            [(7, {"IP_RECVTOS": 1, "SO_OF_LATER": 1, "SO_TIMESTAMP": 1, "SO_TXTIME": b"\1"})], holders
        )
    assert len(told) == 3
    assert "SO_OF_LATER" in told[0] and "SO_TXTIME is not 01 as before" in told[1]
    assert "IP_RECVTOS is not 1 as before" in told[2]


def test_tcp_sockets(namespace: Namespace) -> None:
    """Of one without a connection what an ICI has not; of a connection the time stamps."""
    with socket.socket() as server, socket.socket() as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        server.setsockopt(socket.IPPROTO_IP, 12, 1)
        client.setsockopt(socket.SOL_SOCKET, 37, 0x18)
        held = HeldSocket(7, [(os.getpid(), server.fileno())])
        found = plain_options.of_tcp([held], [(HeldSocket(8, []), client)])
    assert [(one.held.inode, one.options) for one in found] == [
        (7, {"IP_RECVTTL": 1}),
        (8, {"SO_TIMESTAMPING": 0x18}),
    ]
