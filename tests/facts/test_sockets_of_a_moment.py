"""Connections that are opened and closed while a running process is looked at: nothing else is said of them."""

from __future__ import annotations

from netns import Namespace
from programs import program

from migrate import inventory
from migrate.inventory import ports, sockets
from tcpcp.criu import tree
from tcpcp.criu.tree import HeldSocket
from tcpcp.kernel import diag

#: Connects to itself, again and again, each time for a moment only; what is bound to a name is bound to 127.0.0.9.
CONNECTS = """
import socket, threading
l = socket.socket(); l.bind(("127.0.0.9", 0)); l.listen(100); at = l.getsockname()
def go_on():
    while True:
        s = socket.socket(); s.bind(("127.0.0.8", 0)); s.connect(at); c = l.accept()[0]; c.close(); s.close()
threading.Thread(target=go_on, daemon=True).start()
ready()
"""


def test_a_connection_of_a_moment_is_no_other_socket(namespace: Namespace) -> None:
    """The number of its descriptor is that of the next one when it is looked at."""
    with program(CONNECTS) as pid:
        for _ in range(30):
            assert inventory.process(pid).other_addresses == []


def test_a_socket_is_looked_at_by_what_it_is(namespace: Namespace) -> None:
    """Another one that has got the descriptor's number is not taken for it, and is looked at as what it is."""
    code = """
l = socket.socket(); l.bind(("127.0.0.1", 0)); l.listen(); a = socket.create_connection(l.getsockname()); ready()
"""
    with program(code) as pid:
        held = tree.sockets_now([pid])
        connected = {one.inode for one in diag.tcp() if one.peer_port} & {one.inode for one in held}
        others = [HeldSocket(one.inode + 1_000_000, one.holders) for one in held]
        found = sockets.collect(others, [pid])
        assert found.other_addresses == []
        assert {one.inode for one in found.tcp} == connected
        assert all(ports.is_connection(one) for one in found.tcp)
