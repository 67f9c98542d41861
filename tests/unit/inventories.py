"""Two hosts and a process that can be moved from one to the other, to be changed by the tests of the checks."""

from __future__ import annotations

import ipaddress
from typing import Any

from migrate.checks.reasons import refusals
from migrate.errors import Reason
from migrate.pb.session_pb2 import (
    File,
    HostInventory,
    Interface,
    ProcessInventory,
    Task,
    TcpSocket,
)
from migrate.request import SWITCH, Along

LISTEN, ESTABLISHED = 10, 1
SERVICE, PEER = "10.77.1.100", "10.77.2.1"
GB = 1 << 30


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def listener(address: str = SERVICE, port: int = 80, **more: Any) -> TcpSocket:
    zero = bytes(len(ip(address)))
    return TcpSocket(pid=100, fd=3, state=LISTEN, local_ip=ip(address), local_port=port, peer_ip=zero, **more)


def connection(
    local: str = SERVICE, port: int = 80, peer: str = PEER, peer_port: int = 4000, **more: Any
) -> TcpSocket:
    return TcpSocket(
        pid=100,
        fd=4,
        state=more.pop("state", ESTABLISHED),
        local_ip=ip(local),
        local_port=port,
        peer_ip=ip(peer),
        peer_port=peer_port,
        congestion="cubic",
        **more,
    )


def task(pid: int = 100, **more: Any) -> Task:
    fields: dict[str, Any] = {"ppid": 1, "sid": pid, "pgid": pid, "comm": "nginx", "tids": [pid]}
    return Task(pid=pid, **(fields | more))


def process(**more: Any) -> ProcessInventory:
    fields: dict[str, Any] = {
        "root_pid": 100,
        "tasks": [task()],
        "sockets": [listener(), connection()],
        "needed_pids": [100],
        "memory_bytes": 50 << 20,
        "driver_pids": [500, 400, 1],
        "files": [
            File(path="/srv", use=File.WORKING_DIRECTORY, exists=True, directory=True),
            mapped(),
            File(path="/var/log/a.log", use=File.OPEN, size_bytes=7, exists=True, regular=True, written=True),
        ],
    }
    return ProcessInventory(**(fields | more))


def mapped(path: str = "/usr/lib/libc.so.6", build_id: bytes = b"\xab" * 20, **more: Any) -> File:
    fields = {"use": File.MAPPED, "size_bytes": 1900, "exists": True, "regular": True}
    return File(path=path, build_id=build_id, **(fields | more))


def host(name: str, number: int, **more: Any) -> HostInventory:
    own = f"10.77.1.{number}"
    interfaces = [
        Interface(name="lo", addresses=["127.0.0.1/8", "::1/128"], up=True),
        Interface(name="eth0", addresses=[f"{own}/24", f"fd77:1::{number}/64"], up=True),
    ]
    if name == "origin":
        interfaces[1].addresses.append(f"{SERVICE}/32")
    fields: dict[str, Any] = {
        "hostname": name,
        "version": "0.1.0",
        "root": True,
        "kernel": "6.18.44",
        "machine": "x86_64",
        "criu_version": "4.2.1",
        "image_space_bytes": 4 * GB,
        "memory_available_bytes": 8 * GB,
        "congestion_algorithms": ["cubic", "reno"],
        "interfaces": interfaces,
        "own_addresses": [own],
        "pid_max": 32768,
        "cpu_features": ["avx2", "sse4_2"],
    }
    return HostInventory(**(fields | more))


def origin(**more: Any) -> HostInventory:
    return host("origin", 1, **more)


def destination(**more: Any) -> HostInventory:
    return host("destination", 2, **({"files": list(process().files)} | more))


def reasons(
    of: ProcessInventory | None = None,
    here: HostInventory | None = None,
    there: HostInventory | None = None,
    switch: str = SWITCH,
    **along: Any,
) -> list[Reason]:
    return refusals(of or process(), here or origin(), there or destination(), Along(**along), switch=switch)


def only(found: list[Reason]) -> Reason:
    assert len(found) == 1, found
    return found[0]
