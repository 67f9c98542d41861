"""In a time namespace the program's clock is not the kernel's, by which it notes when something came."""

from __future__ import annotations

import subprocess
import sys

from netns import Hosts, eventually

from tcpcp.kernel import fields, tcp_repair

#: Arguments: the descriptor, and from when on a timestamp is old, s.
PROGRAM = """
import socket, sys
import tcpcp
from tcpcp.endpoint import reader

reader._OLD_S = int(sys.argv[2])
tcpcp.prepare()
with socket.socket(fileno=int(sys.argv[1])) as sock:
    ici = tcpcp.get(sock)
    tcpcp.resume(sock)
print(ici.timestamp.ts_recent)
"""


def told(hosts: Hosts, ahead_s: int, old_s: int) -> tuple[str, str]:
    """The peer's last timestamp, as a program tells whose clock is ahead, and as it is."""
    sock, peer = hosts.connect()
    peer.sendall(b"x")
    eventually(lambda: tcp_repair.get_inq(sock) == 1, "arrived")
    inside = ["unshare", "--time", "--monotonic", str(ahead_s), "--fork", sys.executable, "-c", PROGRAM]
    command = [*inside, str(sock.fileno()), str(old_s)]
    with hosts.here.entered():
        run = subprocess.run(command, pass_fds=[sock.fileno()], check=True, stdout=subprocess.PIPE, text=True)
    fields.prepare()
    (now,) = fields.read([sock])
    return run.stdout.strip(), str(now.ts_recent)


def test_the_peers_timestamp_is_not_as_old_as_the_programs_clock_says(hosts: Hosts) -> None:
    found, is_ = told(hosts, 1_000_000, 60)
    assert found == is_


def test_the_peers_timestamp_is_not_of_the_future(hosts: Hosts) -> None:
    """By the program's clock it has still to come; it is 0 s old at least."""
    found, _ = told(hosts, -10, 0)
    assert found == "None"
