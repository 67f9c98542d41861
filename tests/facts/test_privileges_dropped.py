"""A server that prepares as root and then becomes an ordinary user: one error for one lack, and a clean end."""

from __future__ import annotations

import subprocess
import sys

from helpers import environment
from netns import Hosts
from traces import is_held

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
