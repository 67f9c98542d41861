"""A standby: it is bound to an address that its host has not (IP_FREEBIND), and serves it when that comes."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from harness.hosts import MOVERS, spawn
from harness.migrate import Held, run_migrate
from harness.wait import eventually

from migrate.lab import Host, Lab

pytestmark = pytest.mark.usefixtures("clean")

PORT = 7600
ADDRESSES = ("10.99.1.1", "fd99::1")
#: Echoes datagrams and connections, on both families.
STANDBY = f"""
import select, socket
waiting = []
for address in {ADDRESSES!r}:
    for kind in socket.SOCK_DGRAM, socket.SOCK_STREAM:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        waiting.append(sock := socket.socket(family, kind))
        sock.setsockopt(socket.IPPROTO_IP, 15, 1); sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, {PORT}))
        if kind == socket.SOCK_STREAM: sock.listen()
while True:
    for sock in select.select(waiting, [], [])[0]:
        if sock.type == socket.SOCK_STREAM:
            with sock.accept()[0] as connection: connection.sendall(connection.recv(100))
        else:
            data, sender = sock.recvfrom(100); sock.sendto(data, sender)
"""
#: What comes back of what is sent to each.
ASK = f"""
import socket
for address in {ADDRESSES!r}:
    for kind in socket.SOCK_DGRAM, socket.SOCK_STREAM:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as sock:
            sock.settimeout(5); sock.connect((address, {PORT})); sock.send(b"asked"); print(sock.recv(100).decode())
"""


def serves(host: Host) -> list[str]:
    """What it answers when *host* has got the addresses, which go again."""
    for address in ADDRESSES:
        host.exec(["ip", "addr", "add", address, "dev", "lo", *(["nodad"] if ":" in address else [])])
    try:
        return host.exec([sys.executable, "-c", ASK]).stdout.split()
    finally:
        for address in ADDRESSES:
            host.exec(["ip", "addr", "del", f"{address}/{128 if ':' in address else 32}", "dev", "lo"])


def permit(host: Host, word: str = "1") -> None:
    """Any program to be bound so."""
    host.exec(["sysctl", "-q", f"net.ipv4.ip_nonlocal_bind={word}"])


@pytest.fixture(autouse=True)
def _forbidden(lab: Lab) -> Iterator[None]:
    yield
    for name in MOVERS:
        permit(lab.hosts[name], "0")


def started(host: Host) -> int:
    pid = spawn(host, [sys.executable, "-c", STANDBY])
    shown = ["ss", "-Htuln", f"sport = {PORT}"]
    eventually(lambda: len(host.exec(shown).stdout.splitlines()) == 4, "it waits")
    return pid


def test_a_standby_there_and_back(lab: Lab) -> None:
    pid = started(lab.hosts["origin"])
    assert serves(lab.hosts["origin"]) == ["asked"] * 4
    refused = run_migrate(lab.hosts["origin"], pid, "destination")
    assert (refused.status, refused.codes) == (3, {("address-nowhere", "destination")})
    refused.must_say("destination", ADDRESSES[0], "sysctl net.ipv4.ip_nonlocal_bind=1")
    for start, there in (MOVERS, MOVERS[::-1]):
        permit(lab.hosts[there])
        moved = run_migrate(lab.hosts[start], pid, there)  # no service address goes with it
        assert moved.status == 0, moved.said
        assert serves(lab.hosts[there]) == ["asked"] * 4


def test_a_standby_that_does_not_move(lab: Lab) -> None:
    origin = lab.hosts["origin"]
    pid = started(origin)
    permit(lab.hosts["destination"])
    held = Held(origin, "RESTORED", pid, "destination")
    try:
        held.signal("INT")
        assert held.end().report["outcome"] == "ROLLED_BACK"
    finally:
        held.stop()
    assert serves(origin) == ["asked"] * 4
