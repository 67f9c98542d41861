"""Options of sockets that are no TCP sockets: what was set is read, and set again on others; nothing else is."""

from __future__ import annotations

import os
import socket

import pytest
from netns import Namespace

from migrate.inventory import plain_options
from migrate.inventory.plain_options import Option
from tcpcp.criu.tree import HeldSocket

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces")

KINDS = {
    "unix": (socket.AF_UNIX, socket.SOCK_DGRAM, 0),
    "udp": (socket.AF_INET, socket.SOCK_DGRAM, 0),
    "udp6": (socket.AF_INET6, socket.SOCK_DGRAM, 0),
    "netlink": (socket.AF_NETLINK, socket.SOCK_RAW, 0),
}
#: Of a host's own choice: what they begin with is no option that was set.
OF_THE_HOST = {"IP_MTU_DISCOVER", "IPV6_MTU_DISCOVER"}
TABLE = [(kind, name) for kind, (family, _, _) in KINDS.items() for name in plain_options._BY_FAMILY[family]]


def option(name: str) -> Option:
    return plain_options._ALL[name]


def value(sock: socket.socket, name: str) -> int:
    return sock.getsockopt(option(name).level, option(name).number)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_socket_has_none(namespace: Namespace, kind: str) -> None:
    with socket.socket(*KINDS[kind]) as sock:
        assert plain_options.of(sock).keys() <= OF_THE_HOST


def test_no_tcp_socket() -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, 29, 1)
        assert plain_options.of(sock) == {}


@pytest.mark.parametrize(("kind", "name"), TABLE, ids=[f"{kind} {name}" for kind, name in TABLE])
def test_each_is_read_and_set(namespace: Namespace, kind: str, name: str) -> None:
    with socket.socket(*KINDS[kind]) as here, socket.socket(*KINDS[kind]) as there:
        before = value(here, name)
        here.setsockopt(
            option(name).level, option(name).number, 0 if before else 3 if "DISCOVER" in name else 1
        )
        after = value(here, name)
        assert after != before
        [found] = plain_options.read([HeldSocket(7, [(os.getpid(), here.fileno())])])
        assert found.options[name] == after and found.options.keys() <= {name, *OF_THE_HOST}
        told = plain_options.put_back({7: found.options}, {7: (os.getpid(), there.fileno())})
        assert (told, value(there, name)) == ([], after)


def test_what_cannot_be_set_is_told() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        holders = {7: (os.getpid(), sock.fileno())}
        told = plain_options.put_back({7: {"IP_RECVTOS": 1, "SO_OF_LATER": 1, "SO_TIMESTAMP": 1}}, holders)
    assert len(told) == 2 and "IP_RECVTOS is not 1 as before" in told[0] and "SO_OF_LATER" in told[1]
