"""Whether a socket is bound to an address that this host has not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from migrate.inventory import nowhere

_FREEBIND, _TRANSPARENT = 15, 19


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
@pytest.mark.parametrize("option", [_FREEBIND, _TRANSPARENT])
@pytest.mark.parametrize(
    ("family", "address", "its", "ipv4"),
    [
        (socket.AF_INET, "192.0.2.7", True, "192.0.2.7"),
        (socket.AF_INET, "127.0.0.1", False, "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0", False, "0.0.0.0"),  # noqa: S104
        (socket.AF_INET6, "2001:db8::7", True, ""),
        (socket.AF_INET6, "::ffff:192.0.2.7", True, ""),
        (socket.AF_INET6, "::1", False, ""),
        (socket.AF_INET6, "::", False, ""),
    ],
)
def test_what_is_bound_nowhere(
    kind: int, option: int, family: int, address: str, its: bool, ipv4: str
) -> None:
    with socket.socket(family, kind) as sock:
        sock.setsockopt(socket.IPPROTO_IP, option, 1)
        sock.bind((address, 0))
        assert nowhere.is_bound(sock) is its
        assert nowhere.of_ipv4(sock) == ipv4


def test_a_socket_that_may_not_be_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It was bound when its address was there; unless any program may be."""
    sysctl = tmp_path / "ip_nonlocal_bind"
    sysctl.write_text("0\n")
    monkeypatch.setattr(nowhere, "_SYSCTLS", {socket.AF_INET: sysctl})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
        sock.bind(("192.0.2.7", 0))
        sock.setsockopt(socket.IPPROTO_IP, _FREEBIND, 0)
        assert not nowhere.is_bound(sock)
        sysctl.write_text("1\n")
        assert nowhere.is_bound(sock) and nowhere.is_permitted_to_all()
