"""A program that eventlet has patched: its sockets are none of Python's own kind, and its select has no poll()."""

from __future__ import annotations

import subprocess
import sys

from helpers import environment
from netns import Hosts
from passing import assert_no_reset

PROGRAM = """
import warnings; warnings.simplefilter("ignore")  # it is not developed any more, and says so
import eventlet; eventlet.monkey_patch()
import socket, sys
import tcpcp
resumed, kept, passed, given = (socket.socket(fileno=int(one)) for one in sys.argv[1:])

def goes_on():
    try:
        with tcpcp.passing([kept]):
            eventlet.sleep(0.01)
            raise KeyError
    except KeyError:
        kept.sendall(b"here")

def goes(sock, own):
    with tcpcp.passing([sock]) as [ici]:
        data = tcpcp.dumps(ici)
        eventlet.sleep(0.01)
    made = tcpcp.create(tcpcp.loads(data), sock=own)
    tcpcp.activate(made)
    assert isinstance(made, socket.socket)
    made.sendall(b"there")

tcpcp.prepare()
tcpcp.inspect(resumed)
tcpcp.get(resumed)
tcpcp.resume(resumed)
resumed.sendall(b"here")
green = [eventlet.spawn(goes_on), eventlet.spawn(goes, passed, None), eventlet.spawn(goes, given, socket.socket())]
for one in green:
    one.wait()
listener = socket.socket()
listener.bind(("10.9.0.1", 0))
listener.listen()
held = tcpcp.hold_new(listener)
assert tcpcp.drain(listener) == []
held.release()
"""


def test_what_eventlet_has_patched(hosts: Hosts) -> None:
    pairs = [hosts.connect() for _ in range(4)]
    numbers = [sock.fileno() for sock, _ in pairs]
    command = [sys.executable, "-c", PROGRAM, *map(str, numbers)]
    with hosts.here.entered():
        subprocess.run(command, env=environment(), pass_fds=numbers, check=True, timeout=30)
    for sock, _ in pairs:
        sock.close()
    said = []
    for _, peer in pairs:
        peer.settimeout(5)
        said.append(peer.recv(100))
    assert said == [b"here", b"here", b"there", b"there"]
    assert_no_reset(hosts)
