"""Others' rules give packets marks of their own: what is fed to a socket does not pass its isolation then."""

from __future__ import annotations

import subprocess

import pytest
from netns import Hosts
from passing import wait_state

import tcpcp
from tcpcp.record.ici import State

_RULES = "table inet other { chain c { type filter hook prerouting priority -150; meta mark set 0x77; }; }"


def test_the_refusal_names_them(hosts: Hosts) -> None:
    """And once they are gone it is created."""
    sock, peer = hosts.connect()
    peer.shutdown(1)
    wait_state(sock, State.CLOSE_WAIT)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        subprocess.run(["nft", _RULES], check=True)
        with pytest.raises(tcpcp.Unfed, match="another mark than 0xc114.*meta mark set"):
            tcpcp.create(ici)
        subprocess.run(["nft", "delete table inet other"], check=True)
        with tcpcp.create(ici) as made:
            tcpcp.activate(made)
            assert made.recv(1) == b""
            made.sendall(b"x")
            assert peer.recv(1) == b"x"
