"""To which tree a process with a socket belongs, and which containers there are."""

from __future__ import annotations

import json

import pytest

from migrate.inventory import connected, holders, proc
from migrate.inventory.holders import Held
from migrate.pb.session_pb2 import TcpSocket
from migrate.processes import containers, oci, podman

#: PID -> parent: a server with workers (10), sshd with a session (20) whose shell has started a server (23), a
#: container (31) of which only a grandchild has a socket, and what init has itself.
PARENTS = {1: 0, 10: 1, 11: 10, 12: 10, 20: 1, 21: 20, 22: 21, 23: 22, 30: 1, 31: 30, 32: 31, 33: 32}
SOCKETS = {1: {1, 2}, 10: {2, 10}, 11: {10, 11}, 12: {10}, 20: {20}, 21: {21}, 22: {99}, 23: {23}, 33: {33}}


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    def ancestors(pid: int) -> list[int]:
        if pid == 12:
            raise proc.Gone("process 12")
        return [pid, *(ancestors(PARENTS[pid]) if PARENTS[pid] else [])]

    def table(pids: object) -> dict[int, TcpSocket]:
        return {inode: TcpSocket(inode=inode) for inode in (1, 2, 10, 11, 20, 21, 23, 33)}

    held = [
        Held(pid, fd, f"socket:[{inode}]") for pid, some in SOCKETS.items() for fd, inode in enumerate(some)
    ]
    monkeypatch.setattr(holders, "everywhere", lambda: iter([*held, Held(10, 9, "/dev/null")]))
    monkeypatch.setattr(connected, "_table", table)
    monkeypatch.setattr(proc, "ancestors", ancestors)


def test_workers_belong_to_their_master_and_what_a_shell_starts_to_nobody() -> None:
    found = {one.root_pid: [socket.inode for socket in one.sockets] for one in connected.trees({31: "web"})}
    assert found == {1: [1, 2], 10: [2, 10, 11], 20: [20, 21], 23: [23], 31: [33]}


def test_init_is_no_tree_for_what_it_keeps_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOCKETS, 1, {2})
    held = [
        Held(pid, fd, f"socket:[{inode}]") for pid, some in SOCKETS.items() for fd, inode in enumerate(some)
    ]
    monkeypatch.setattr(holders, "everywhere", lambda: iter(held))
    assert 1 not in {one.root_pid for one in connected.trees()}


def test_containers_by_the_pid_of_their_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [
        {"id": "web", "pid": 31, "status": "running"},
        {"id": "old", "pid": 0, "status": "stopped"},
        {"id": "0123456789ab", "pid": 41, "status": "running"},
        {"id": "odd", "pid": "no number", "status": "running"},
    ]
    said = {"runc": json.dumps(plain), "crun": "nonsense"}
    monkeypatch.setattr(oci, "known", lambda: ["runc", "crun"])
    monkeypatch.setattr(oci, "said", lambda runtime, *words: said[runtime])
    monkeypatch.setattr(podman, "said", lambda *words: json.dumps([{"Pid": 41, "Names": ["shop"]}, {}, 7]))
    assert containers.running() == {31: "web@runc", 41: "shop@podman"}
    monkeypatch.setattr(podman, "said", lambda *words: "")
    assert containers.running()[41] == "0123456789ab@runc"
