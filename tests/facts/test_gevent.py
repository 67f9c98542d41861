"""A program of gevent, whose greenlets pass connections at the same time; its threads are greenlets too."""

from __future__ import annotations

import socket
import subprocess
import sys

from helpers import environment
from netns import Hosts
from passing import assert_no_reset

PROGRAM = """
from gevent import monkey; monkey.patch_all()
import os, signal, socket, sys, threading
import gevent, tcpcp
socks = [socket.socket(fileno=int(one)) for one in sys.argv[1:]]
own = socks.pop()
half = len(socks) // 2

def goes_on(sock):
    try:
        with tcpcp.passing([sock]):
            gevent.sleep(0.01)
            raise KeyError
    except KeyError:
        sock.sendall(b"here")

def goes(sock):
    # So a handler is not put off, which the README of the library says.
    assert threading.current_thread() is not threading.main_thread()
    with tcpcp.passing([sock]) as [ici]:
        data = tcpcp.dumps(ici)
        gevent.sleep(0.01)
    made = tcpcp.create(tcpcp.loads(data))
    tcpcp.activate(made)
    made.sendall(b"there")

tcpcp.prepare()
came = []
signal.signal(signal.SIGTERM, lambda *_: came.append(1))
greenlets = [gevent.spawn(goes_on, one) for one in socks[:half]]
greenlets += [gevent.spawn(goes, one) for one in socks[half:]]
gevent.joinall(greenlets, raise_error=True)
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
os.kill(os.getpid(), signal.SIGTERM)
gevent.sleep(0)
assert came == [1]
goes_on(own)
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
"""


def test_greenlets_pass_connections_and_signals_come_through(hosts: Hosts) -> None:
    pairs = [hosts.connect() for _ in range(11)]
    numbers = [sock.fileno() for sock, _ in pairs]
    command = [sys.executable, "-c", PROGRAM, *map(str, numbers)]
    with hosts.here.entered():
        subprocess.run(command, env=environment(), pass_fds=numbers, check=True, timeout=30)
        for sock, _ in pairs:
            sock.close()
        said = [heard(peer) for _, peer in pairs]
    assert said == [b"here"] * 5 + [b"there"] * 5 + [b"here"]
    assert_no_reset(hosts)


def heard(peer: socket.socket) -> bytes:
    peer.settimeout(1)
    data = b""
    try:
        while more := peer.recv(100):
            data += more
    except TimeoutError:
        pass
    return data
