"""A server that prepares as root and then becomes an ordinary user: one error for one lack, and a clean end."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from helpers import environment
from netns import Hosts
from traces import is_held

import tcpcp

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_DROPS = """
import os, socket, sys
import tcpcp
got, other, passed = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
listener = socket.create_server(("10.9.0.1", 0))
tcpcp.prepare()
ici = tcpcp.get(got)
image = tcpcp.get(passed)
tcpcp.release(passed)
created = tcpcp.create(image)
hold = tcpcp.hold_new(listener)
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
calls = {
    "prepare": tcpcp.prepare,
    "get": lambda: tcpcp.get(other),
    "create": lambda: tcpcp.create(image),
    "renew": lambda: tcpcp.renew(got),
    "activate": lambda: tcpcp.activate(created),
    "resume": lambda: tcpcp.resume(got),
    "release": lambda: tcpcp.release(got),
    "hold_new": lambda: tcpcp.hold_new(listener),
    "refresh": hold.refresh,
    "release what is held": hold.release,
}
for name, call in calls.items():
    try:
        call()
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}")
other.sendall(b"goes on")
"""


def test_every_call_says_the_same(hosts: Hosts) -> None:
    pairs = [hosts.connect() for _ in range(3)]
    numbers = [sock.fileno() for sock, _ in pairs]
    with hosts.here.entered():
        done = subprocess.run(
            [sys.executable, "-c", _DROPS, *map(str, numbers)],
            env=environment(),
            pass_fds=numbers,
            capture_output=True,
            text=True,
        )
    lines = done.stdout.splitlines()
    assert len(lines) == 10, done
    for line in lines:
        assert ": PermissionDenied: " in line and "CAP_NET_ADMIN is missing" in line
        assert "setcap(8)" in line
    assert (done.returncode, done.stderr) == (0, "")  # nor is there a traceback at the end
    assert pairs[1][1].recv(100) == b"goes on"
    assert is_held(pairs[0][1])  # nothing has changed


_CREATES = """
import ctypes, socket, struct, sys
import tcpcp
image = tcpcp.loads(sys.stdin.buffer.read())
wanted = {int(one) for one in sys.argv[1:]}
libc = ctypes.CDLL(None, use_errno=True)
bits = sum(1 << one for one in wanted)
low, high = bits & 2**32 - 1, bits >> 32
data = struct.pack("=6I", low, low, 0, high, high, 0)
assert libc.capset(struct.pack("=Ii", 0x20080522, 0), data) == 0
try:
    made = tcpcp.create(image)
    tcpcp.activate(made)
    print("made")
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""
#: capabilities(7).
_BIND_SERVICE, _ADMIN, _RAW, _PERFMON, _BPF = 10, 12, 13, 38, 39


@pytest.mark.parametrize("kind", ("v4", "v6"))
def test_a_port_that_is_not_for_everybody(hosts: Hosts, kind: str) -> None:
    """A server's, mostly. It is said what is missing, and with that it works."""
    version = 6 if kind == "v6" else 4
    with hosts.here.entered():
        listener = socket.create_server((hosts.here_ip[version], 80), family=_FAMILIES[version])
    with hosts.there.entered():
        peer = socket.create_connection((hosts.here_ip[version], 80))
    sock, _ = listener.accept()
    listener.close()
    with hosts.here.entered():
        image = tcpcp.dumps(tcpcp.get(sock))
        tcpcp.release(sock)
        few = (_ADMIN, _RAW, _PERFMON, _BPF)
        said = _created(image, *few)
        assert said.startswith("PermissionDenied: local port 80 is below net.ipv4.ip_unprivileged_port_start")
        assert "CAP_NET_BIND_SERVICE" in said
        assert _created(image, *few, _BIND_SERVICE) == "made"
    peer.close()


def _created(image: bytes, *capabilities: int) -> str:
    command = [sys.executable, "-c", _CREATES, *map(str, capabilities)]
    done = subprocess.run(command, env=environment(), input=image, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().strip()
