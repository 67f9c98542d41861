"""Sockets of others on the service addresses: who has them is looked for twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from migrate.inventory import answers, proc
from migrate.inventory.holders import SocketHolder
from migrate.pb.session_pb2 import HostInventory, ProcessInventory, Task, TcpSocket

ADDRESS = bytes([10, 0, 0, 1])
Looks = list[dict[int, SocketHolder]]


def taken(looks: Looks, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes of sockets that are told of, where the holders are those of *looks*, one after the other."""
    left = iter(looks)

    def with_holders(wanted: Callable[[TcpSocket], bool]) -> tuple[list[TcpSocket], dict[int, SocketHolder]]:
        held = next(left)
        rows = [
            TcpSocket(inode=inode, local_ip=ADDRESS, local_port=80, state=1, peer_port=9) for inode in held
        ]
        return [one for one in rows if wanted(one)], held

    monkeypatch.setattr(answers, "_with_holders", with_holders)
    monkeypatch.setattr(answers.of_host, "inspect", lambda *_: HostInventory())
    monkeypatch.setattr(proc, "descends", lambda pid, tree: pid in tree)
    process = ProcessInventory(root_pid=7, tasks=[Task(pid=7)], service_addresses=["10.0.0.1"])
    return [one.inode for one in answers.host(process=process).taken_ports]


def test_what_a_child_had_that_has_ended_is_the_trees_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It had it until it executed another program; its parent is not known any more."""
    child, parent = SocketHolder("sh (PID 99)", 99, 5), SocketHolder("server (PID 7)", 7, 5)
    assert taken([{1: child}, {1: parent}], monkeypatch) == []


def test_what_others_have_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    other, new = SocketHolder("other (PID 50)", 50, 5), SocketHolder("sh (PID 99)", 99, 6)
    assert taken([{1: other}, {1: other, 2: new}], monkeypatch) == [1]
