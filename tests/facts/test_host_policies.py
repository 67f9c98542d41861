"""IPsec policies of the destination's own: what is fed to it by lo is not encrypted, and IPv6 does not except lo.

Source: net/ipv4/devinet.c inetdev_event(), NETDEV_REGISTER: disable_policy of lo. IPv6 has it by address.
"""

from __future__ import annotations

import pytest
from netns import Hosts, ip
from passing import wait_state

import tcpcp
from tcpcp.record.ici import State


@pytest.mark.parametrize("kind", ["v4", "v6"])
def test_what_is_fed_meets_a_policy(hosts: Hosts, kind: str) -> None:
    """The refusal names it, and what lets it in."""
    version = 6 if kind == "v6" else 4
    way = f"src {hosts.there_ip[version]} dst {hosts.here_ip[version]}"
    sock, peer = hosts.connect(kind)
    peer.shutdown(1)
    wait_state(sock, State.CLOSE_WAIT)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        tcpcp.release(sock)
        ip(f"xfrm policy add {way} dir in priority 10 tmpl {way} proto esp mode transport level required")
        if version == 6:
            with pytest.raises(tcpcp.Unfed, match="ip xfrm policy"):
                tcpcp.create(ici)
            ip(f"xfrm policy add {way} dir in mark 0xc114 priority 1")
        made = tcpcp.create(ici)
        tcpcp.release(made)
