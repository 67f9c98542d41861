"""A client that has given up before the reply: nothing is begun for it, and what was got by then goes on."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest
from helpers import Helper
from netns import Hosts, eventually
from passing import assert_no_reset
from test_helper import exchange

import tcpcp
from tcpcp import helper
from tcpcp.helper import HelperError, descriptors, protocol
from tcpcp.helper.protocol import Operation, Request
from tcpcp.kernel import tcp_repair


@pytest.fixture
def running(hosts: Hosts) -> Iterator[Helper]:
    running = Helper(hosts.here, "--user", "root")
    with hosts.here.entered():
        yield running
    running.close()


@pytest.fixture
def stopped(running: Helper) -> Iterator[int]:
    """The worker; the test stops it."""
    first = helper.connect(running.path)
    [worker] = running.workers()
    yield worker
    os.kill(worker, signal.SIGCONT)
    first.close()


def went_through(running: Helper) -> None:
    """The worker has dealt with all that came before."""
    with helper.connect(running.path):
        pass


def asked(connection: socket.socket, operation: Operation, *socks: socket.socket) -> None:
    descriptors.send(
        connection, protocol.pack_request(Request(operation, len(socks))), [one.fileno() for one in socks]
    )


@pytest.mark.parametrize("child", (False, True), ids=("alone", "a child has it too"))
def test_a_get_that_was_given_up_is_not_begun(
    hosts: Hosts, running: Helper, stopped: int, child: bool
) -> None:
    sock, peer = hosts.connect()
    client = helper.connect(running.path, timeout_s=2)
    copy = client._connection.dup() if child else None  # as fork() makes it
    os.kill(stopped, signal.SIGSTOP)
    with pytest.raises(HelperError):
        client.get(sock)
    exchange(sock, peer)
    os.kill(stopped, signal.SIGCONT)
    went_through(running)
    exchange(sock, peer)
    assert "GET" not in running.log()
    if copy:
        copy.close()


def test_an_activate_that_was_given_up_is_not_begun(hosts: Hosts, running: Helper, stopped: int) -> None:
    """The origin may have been told, and goes on."""
    sock, peer = hosts.connect()
    ici = tcpcp.get(sock)
    tcpcp.release(sock)
    client = helper.connect(running.path, timeout_s=3)
    made = client.create(ici)
    os.kill(stopped, signal.SIGSTOP)
    with pytest.raises(HelperError):
        client.activate(made)
    os.kill(stopped, signal.SIGCONT)
    went_through(running)
    assert "ACTIVATE" not in running.log()
    assert_no_reset(hosts)


@pytest.mark.parametrize("how", ("close", "shut"))
def test_what_was_got_and_not_heard_of_goes_on(hosts: Hosts, running: Helper, how: str) -> None:
    """The reply is there, and nobody has read it; of what was got before, somebody may have the ICI."""
    (known, _), (sock, peer) = hosts.connect(), hosts.connect()
    client = helper.connect(running.path)
    client.get(known)
    asked(client._connection, Operation.GET, sock)
    eventually(lambda: tcp_repair.get_repair(sock), "got")
    eventually(lambda: len(client._connection.recv(100, socket.MSG_PEEK)) > 0, "the reply")
    if how == "shut":
        client._connection.shutdown(socket.SHUT_RDWR)
        went_through(running)
        exchange(sock, peer)
    client._connection.close()
    went_through(running)
    exchange(sock, peer)
    with pytest.raises(OSError):
        known.send(b"x")
    assert_no_reset(hosts)


def test_what_was_got_for_one_who_has_gone_goes_on(hosts: Hosts, running: Helper, stopped: int) -> None:
    """It hangs up while the helper is at work: the reply cannot be sent."""
    sock, peer = hosts.connect()
    client = helper.connect(running.path)
    for _ in range(20):
        asked(client._connection, Operation.GET, sock)
        client._connection.shutdown(socket.SHUT_RDWR)
        client._connection.close()
        went_through(running)
        exchange(sock, peer)
        client = helper.connect(running.path)
    client.close()
    assert_no_reset(hosts)


def test_who_leaves_after_the_reply_was_read(hosts: Hosts, running: Helper) -> None:
    """Its ICI may have been given away: what was got ends silently."""
    sock, _ = hosts.connect()
    client = helper.connect(running.path)
    client.get(sock)
    client._connection.close()
    went_through(running)
    with pytest.raises(OSError):
        sock.send(b"x")
    assert_no_reset(hosts)
