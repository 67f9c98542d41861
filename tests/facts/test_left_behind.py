"""What becomes of a peer whose connection is left behind when all that was sent to it has arrived.

The driver waits for no socket in FIN_WAIT2 or TIME_WAIT (:mod:`migrate.origin.unowned`): on the destination
there is none, so that a FIN that the peer sends, or sends again, is answered with a reset.
"""

from __future__ import annotations

import socket
import subprocess

import pytest
from netns import Hosts, eventually

SENT = b"x" * 50_000
CUT_OFF = """
table ip cut {
    chain in { type filter hook input priority 0; %s meta l4proto tcp drop; }
    chain out { type filter hook output priority 0; meta l4proto tcp drop; }
}
"""


def nft(hosts: Hosts, rules: str) -> None:
    with hosts.here.entered():
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


@pytest.mark.parametrize("state", ["FIN-WAIT-2", "TIME-WAIT"])
def test_the_reset_takes_nothing_from_the_peer(hosts: Hosts, state: str) -> None:
    sock, peer = hosts.connect()
    sock.sendall(SENT)
    sock.close()
    eventually(lambda: "FIN-WAIT-2" in hosts.ss(hosts.here), "all has arrived")
    # The peer's FIN is lost; or it arrives, and what is lost is the answer.
    nft(hosts, CUT_OFF % ("tcp flags & fin == 0" if state == "TIME-WAIT" else ""))
    peer.shutdown(socket.SHUT_WR)
    eventually(lambda: "LAST-ACK" in hosts.ss(hosts.there), "the peer has sent its FIN")
    eventually(lambda: state in hosts.ss(hosts.here), "it is in that state")
    hosts.ss(hosts.here, "-tK")
    hosts.ss(hosts.here, "-tK state time-wait")
    eventually(lambda: not hosts.ss(hosts.here), "nobody knows the connection any more")
    nft(hosts, "delete table ip cut")
    eventually(lambda: not hosts.ss(hosts.there), "the FIN was sent again, and answered with a reset")
    assert hosts.counters(hosts.here)["TcpOutRsts"] > 0
    got = b""
    while some := peer.recv(1 << 16):
        got += some
    assert got == SENT
    peer.close()
