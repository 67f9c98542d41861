"""The UDP ports of CRIU's images, as the inventory names them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from criu_entries import udp_entry

from migrate.criu import udp_ports
from migrate.errors import ProtocolError
from migrate.pb.session_pb2 import TakenName


def test_what_will_be_bound(tmp_path: Path) -> None:
    assert udp_ports.of_images(tmp_path) == []
    sockets = [
        udp_entry(),
        udp_entry(proto=6),
        udp_entry(port=0),
        udp_entry(address="2001:db8::1", reuseaddr=True),
        udp_entry(port=53, so_reuseport=True),
    ]
    (tmp_path / "files.img").write_bytes(b"magic123" + b"".join(sockets))
    first, second, third = udp_ports.of_images(tmp_path)
    assert {one.kind for one in (first, second, third)} == {TakenName.UDP}
    assert (first.ip, first.port, first.shares) == (socket.inet_aton("127.0.0.1"), 5353, False)
    assert (second.ip, second.shares) == (socket.inet_pton(socket.AF_INET6, "2001:db8::1"), True)
    assert (third.port, third.shares, third.ipv6_only) == (53, True, True)


def test_what_is_no_image() -> None:
    with pytest.raises(ProtocolError):
        udp_ports.bound(b"magic123" + udp_entry(words=1))
    with pytest.raises(ProtocolError):
        udp_ports.bound(b"magic123" + udp_entry()[:-1])
