"""What a program has not taken yet from its sockets is found before the freeze, and in it."""

from __future__ import annotations

import os
import socket
import struct

import pytest
from netns import Hosts, Namespace, eventually
from programs import program

from migrate import inventory
from migrate.errors import MigrateError
from migrate.inventory import untold
from migrate.pb.session_pb2 import ProcessInventory
from tcpcp.criu import stages
from tcpcp.errors import Unsupported

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces")

PAIR = """
import select
server = socket.create_server(("127.0.0.1", 0))
theirs = socket.socket()
theirs.connect(server.getsockname())
ours, _ = server.accept()
def reset(): theirs.setsockopt(1, 13, struct.pack("ii", 1, 0)); theirs.close(); comes(ours)
def closed():
    while ours.getsockopt(6, 11, 1)[0] != 7: time.sleep(0.01)
def comes(sock):
    told = select.poll(); told.register(sock, 0)  # hung up, or an error
    assert told.poll(10000)
"""
ZEROCOPY = """
ours.setsockopt(1, 60, 1)
"""
LINGER = struct.pack("ii", 1, 0)


def told(found: ProcessInventory) -> list[str]:
    obstacles = [one.what for one in found.obstacles if one.code == "untold"]
    return obstacles + [one.problem for one in found.sockets if one.problem]


def told_of(code: str) -> list[str]:
    with program(f"{PAIR}{code}\nready()") as pid:
        return told(inventory.process(pid))


def test_a_reset_that_the_program_has_not_read(namespace: Namespace) -> None:
    (one,) = told_of("reset()")
    assert "an error that the program has not been told" in one
    read = "reset()\ntry: ours.recv(9)\nexcept OSError: pass"
    assert told_of(read) == []


def test_a_connect_that_was_refused(namespace: Namespace) -> None:
    """Of a socket that is bound, so that the kernel's table has it."""
    code = """
one = socket.socket(); one.bind(("127.0.0.1", 0)); one.setblocking(False)
one.connect_ex(("127.0.0.1", 9)); comes(one)"""
    (found,) = told_of(code)
    assert "an error that the program has not been told" in found


def test_an_ended_connection_with_bytes_to_read(namespace: Namespace) -> None:
    ended = 'theirs.sendall(b"unread"); theirs.shutdown(1); ours.shutdown(1); closed()'
    (one,) = told_of(ended)
    assert "6 bytes of an ended connection" in one
    assert told_of(ended + "; ours.recv(99)") == []


def test_zero_copy(namespace: Namespace) -> None:
    """Only once it may have been used; the notifications of what the peer has got wait in the error queue."""
    assert told_of(ZEROCOPY) == []
    (one,) = told_of(ZEROCOPY + 'ours.send(b"x" * 40000, 0x4000000); comes(ours)')
    assert "error queue" in one
    (one,) = told_of(
        ZEROCOPY + 'ours.send(b"x" * 40000, 0x4000000); comes(ours); ours.recvmsg(9, 99, 0x2000)'
    )
    assert "MSG_ZEROCOPY" in one


def test_descriptors_on_their_way(namespace: Namespace) -> None:
    code = 'a, b = socket.socketpair(); socket.send_fds(a, [b"x"], [0, 1, 2])'
    with program(f"{code}\nready()") as pid:
        assert [(one.code, one.what) for one in inventory.process(pid).obstacles] == [("in-flight", "3")]
    with program(f"{code}\nsocket.recv_fds(b, 9, 3)\nready()") as pid:
        assert not inventory.process(pid).obstacles


def test_a_reset_while_it_is_frozen(hosts: Hosts) -> None:
    """After the look of the check: by the dump, or when it is isolated."""
    sock, peer = hosts.connect()
    untold.require_none({1: sock}, [])
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    peer.close()
    eventually(lambda: untold.problem(sock), "it is reset")
    with pytest.raises(MigrateError, match="an error that the program has not been told"):
        untold.require_none({1: sock}, [])
    with pytest.raises(Unsupported, match="has not been told yet"):
        list(stages.Extract([], {1: sock}, [], []).get())
    with pytest.raises(ConnectionResetError):
        sock.recv(9)
    assert list(stages.Extract([], {1: sock}, [], []).get()) == []


def test_a_raw_socket_of_tcp_is_no_connection(namespace: Namespace) -> None:
    code = "a = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP); ready()"
    with program(code) as pid:
        # It hears what anybody on this host is sent, and that is lost.
        assert {one.code for one in inventory.process(pid).obstacles} <= {"datagrams"}
        extract = stages.Extract.collect([pid])
        assert extract.closed == []
        extract.close()
