"""Who has begun to listen on the destination since the check is found before the tree is built."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from criu_entries import udp_entry
from destination_fakes import World, world

from migrate.destination import still_free
from migrate.errors import Taken
from tcpcp.record.ici import Endpoint

__all__ = ["world"]


@contextlib.contextmanager
def theirs(address: str, *, six_only: bool = False, device: bytes = b"") -> Iterator[int]:
    """A socket that listens at a port, which all may share."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, six_only)
        sock.bind((address, 0))
        sock.listen()
        yield sock.getsockname()[1]


def ours(address: str, port: int) -> list[Endpoint]:
    return [Endpoint(ipaddress.ip_address(address), port)]


@pytest.mark.parametrize(
    ("address", "there", "more"),
    [
        ("127.0.0.1", "127.0.0.1", {}),
        ("0.0.0.0", "127.0.0.1", {}),
        ("127.0.0.1", "0.0.0.0", {}),
        ("127.0.0.1", "::", {}),
        ("::1", "::", {"six_only": True}),
    ],
)
def test_somebody_listens_there(address: str, there: str, more: dict[str, bool]) -> None:
    with theirs(there, **more) as port:
        with pytest.raises(Taken, match=rf"port {port} is taken by .*\(PID {os.getpid()}\)") as raised:
            still_free.require(ours(address, port))
        assert f"sport = :{port}" in raised.value.problem.hint
    still_free.require(ours(address, port))


@pytest.mark.parametrize(
    ("address", "there", "more"),
    [
        ("127.0.0.1", "127.0.0.2", {}),
        ("127.0.0.1", "::", {"six_only": True}),
        ("::", "127.0.0.1", {}),  # one that takes IPv4 too has two endpoints
        ("127.0.0.1", "127.0.0.1", {"device": b"lo"}),
    ],
)
def test_both_can_be_there(address: str, there: str, more: dict[str, bool]) -> None:
    with theirs(there, **more) as port:  # type: ignore[arg-type]
        still_free.require(ours(address, port))
        still_free.require([])


def test_a_udp_port(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        (tmp_path / "files.img").write_bytes(b"magic123" + udp_entry(port=port))
        with pytest.raises(Taken, match=rf"UDP port {port}, .* 127.0.0.1:{port}, .*\(PID {os.getpid()}\)"):
            still_free.require_udp(tmp_path)
    still_free.require_udp(tmp_path)


def test_it_is_looked_at_just_before_the_build(world: World) -> None:
    world.run(until="restore")
    assert (
        world.calls.index("listeners")
        < world.calls.index("still_free")
        < world.calls.index("still_free.udp")
        < world.calls.index("worker.restore")
    )
