"""Descriptors run out, in the helper or in the program that asks it: nothing that is held is lost."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from helpers import Helper, environment
from netns import Hosts, eventually
from test_helper import exchange

from tcpcp import KernelError, helper
from tcpcp.helper import Client, HelperError
from tcpcp.helper.protocol import MAX_SOCKETS
from tcpcp.kernel import tcp_repair

#: Descriptors of a helper, and how many of them are left for sockets (tcpcp/helper/room.py).
LIMIT, HELD = 500, 500 - 32 - 64 - 241
BATCH = 120


@contextlib.contextmanager
def helper_with(hosts: Hosts, descriptors: str) -> Iterator[tuple[Helper, Client]]:
    running = Helper(hosts.here, "--user", "root", descriptors=descriptors)
    try:
        with hosts.here.entered(), helper.connect(running.path) as client:
            yield running, client
    finally:
        running.close()


def connections(hosts: Hosts, count: int) -> list[tuple[socket.socket, socket.socket]]:
    return [hosts.connect() for _ in range(count)]


def room(running: Helper, free: int) -> None:
    """Leave the worker *free* descriptors, from now on."""
    (worker,) = running.workers()
    taken = {int(name) for name in os.listdir(f"/proc/{worker}/fd")}  # noqa: PTH208
    unused = (number for number in itertools.count() if number not in taken)
    _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (next(itertools.islice(unused, free, None)), hard))


def test_what_there_is_no_room_for_is_refused(hosts: Hosts) -> None:
    with helper_with(hosts, f"{LIMIT}:{LIMIT}") as (running, client):
        pairs = connections(hosts, 4 * BATCH)
        socks = [sock for sock, _ in pairs]
        client.get_many(socks[:BATCH])
        for start in range(BATCH, 4 * BATCH, BATCH):
            with pytest.raises(HelperError, match=f"the limit is {HELD}"):
                client.get_many(socks[start : start + BATCH])
        client.resume_many(socks[:BATCH])
        for sock, peer in pairs[::10]:
            exchange(sock, peer)
        assert f"at most {HELD} sockets" in running.log()


def test_one_by_one_and_then_another_connection(hosts: Hosts) -> None:
    with helper_with(hosts, f"{LIMIT}:{LIMIT}") as (running, client):
        pairs = connections(hosts, HELD + 1)
        for sock, _ in pairs[:-1]:
            client.get(sock)
        with pytest.raises(HelperError, match="the limit"):
            client.get(pairs[-1][0])
        others = [helper.connect(running.path) for _ in range(31)]
        with pytest.raises(HelperError, match="connections already"):
            helper.connect(running.path)
        for start in range(0, HELD, 100):
            client.resume_many([sock for sock, _ in pairs[:-1][start : start + 100]])
        for sock, peer in pairs[::20]:
            exchange(sock, peer)
        for other in others:
            other.close()


def test_the_soft_limit_is_raised(hosts: Hosts) -> None:
    with helper_with(hosts, "300:4000") as (_, client):
        pairs = connections(hosts, 2 * MAX_SOCKETS)
        for start in (0, MAX_SOCKETS):
            client.get_many([sock for sock, _ in pairs[start : start + MAX_SOCKETS]])
        for start in (0, MAX_SOCKETS):
            client.resume_many([sock for sock, _ in pairs[start : start + MAX_SOCKETS]])
        exchange(*pairs[-1])


def test_a_limit_that_leaves_no_room_is_told_at_once(hosts: Hosts) -> None:
    command = ["prlimit", "--nofile=128:128", sys.executable, "-m", "tcpcp.helper", "--user", "root"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "128 descriptors" in done.stderr


def test_no_room_after_all(hosts: Hosts) -> None:
    """Whoever brought that about: it is told, what is held stays, and the connection to the helper too."""
    with helper_with(hosts, "") as (running, client):
        (sock, peer), *more = connections(hosts, 11)
        client.get(sock)
        room(running, 5)
        with pytest.raises(HelperError, match="no descriptor is free") as caught:
            client.get_many([other for other, _ in more])
        assert type(caught.value) is HelperError
        client.resume(sock)
        for pair in [(sock, peer), *more]:
            exchange(*pair)


def test_no_room_for_another_connection(hosts: Hosts) -> None:
    with helper_with(hosts, "") as (running, client):
        sock, peer = hosts.connect()
        client.get(sock)
        client.renew(sock)  # the reply to a get is closed there after it was sent
        room(running, 0)
        with pytest.raises(HelperError):
            helper.connect(running.path)
        room(running, 20)
        eventually(lambda: helper.connect(running.path).close() or True, "there is room again")
        client.resume(sock)
        exchange(sock, peer)


@contextlib.contextmanager
def free(count: int) -> Iterator[None]:
    """This process has *count* descriptors free, and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208 - its own is gone afterwards
    last = max(taken) + 1
    filled = [os.open("/dev/null", os.O_RDONLY) for _ in range(last - len(taken) + 1)]
    for _ in range(count):
        os.close(filled.pop())
    resource.setrlimit(resource.RLIMIT_NOFILE, (last, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in filled:
            os.close(one)


class Standing:
    """Has a fileno(), as asyncio's TransportSocket, and no more."""

    def __init__(self, sock: socket.socket) -> None:
        self.fileno = sock.fileno


@pytest.mark.parametrize("stands", [False, True])
def test_a_program_without_a_free_descriptor(hosts: Hosts, stands: bool) -> None:
    with helper_with(hosts, "") as (running, client):
        sock, peer = hosts.connect()
        given = Standing(sock) if stands else sock
        ici = client.get(given)
        client.resume(given)
        for count in (0, 1) if stands else (0,):
            with free(count), pytest.raises(KernelError) as caught:
                client.get(given)
            assert (caught.value.errno, vars(caught.value).get("__notes__")) == (errno.EMFILE, None)
            assert not tcp_repair.get_repair(sock)
            exchange(sock, peer)
        for count in (0, 1):
            with free(count), pytest.raises(KernelError) as caught:
                client.create(ici)
            assert caught.value.errno == errno.EMFILE
        with free(0), pytest.raises(KernelError):
            helper.connect(running.path)
        client.get(given)
        client.resume(given)
        exchange(sock, peer)
