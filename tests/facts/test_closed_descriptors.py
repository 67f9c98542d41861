"""A daemon has closed all descriptors, the library's too, and its own files have the numbers now."""

from __future__ import annotations

import dataclasses
import gc
import os
import socket
from collections.abc import Callable
from pathlib import Path

import netns
import pytest
from forking import ended, in_child
from netns import Hosts
from passing import assert_no_reset

import tcpcp
from tcpcp.endpoint import congestion as congestion_state
from tcpcp.endpoint import isolation
from tcpcp.kernel import bpf, kept, nft, tcp_repair

#: Where the descriptors are that the tests need; below are the library's.
_KEPT, _LAST = 500, 2000


def enter(hosts: Hosts) -> None:
    """For good: what :meth:`netns.Namespace.entered` needs to come back would be closed too."""
    netns._check(netns._libc.setns(hosts.here.fd, netns.CLONE_NEWNET))


def close_all() -> None:
    """As a daemon does; what is from 500 to 519 stays open.

    What tests before this one have left as garbage closes its descriptors before: else it would close files of the
    program that have got their numbers, whenever the collector comes by.
    """
    gc.collect()
    os.closerange(3, _KEPT)
    os.closerange(_KEPT + 20, _LAST)


def own_files(path: Path) -> list[int]:
    """Descriptors of the program's own, which fill the gaps."""
    return [os.open(path, os.O_CREAT | os.O_RDWR) for _ in range(60)]


def are_whole(files: list[int], path: Path) -> bool:
    inode = path.stat().st_ino
    for one in files:
        try:
            if os.fstat(one).st_ino != inode:
                return False
        except OSError:
            return False
    return True


def use_all() -> None:
    """The library has all of the descriptors that it keeps."""
    tcpcp.prepare()
    held = isolation.Isolation("own")
    held.hold([])
    nft._contexts.netlink()


def test_after_fork_what_is_the_programs_stays_open(hosts: Hosts, tmp_path: Path) -> None:
    """The child closes what it has inherited of the library's, and nothing else."""
    path = tmp_path / "own"

    def check() -> bool:
        enter(hosts)
        use_all()
        close_all()
        files = own_files(path)
        return ended(in_child(lambda: are_whole(files, path))) == 0 and are_whole(files, path)

    assert ended(in_child(check)) == 0


class _Garbage:
    """Of a test before this one: a socket that only the garbage collector closes."""

    def __init__(self) -> None:
        self.itself, self.socket = self, socket.socket()


def test_garbage_of_others_closes_nothing_of_the_programs(tmp_path: Path) -> None:
    """Of the tests themselves: what is closed later than all is, by its number, is somebody else's."""
    path = tmp_path / "own"

    def check() -> bool:
        gc.disable()
        for _ in range(10):
            _Garbage()
        close_all()
        files = own_files(path)
        gc.collect()
        return are_whole(files, path)

    assert ended(in_child(check)) == 0


def nothing() -> bool:
    return True


def others(path: Path) -> Callable[[], bool]:
    """Numbers are the program's; to be called when the library has been used again, to see that they still are."""
    files = own_files(path)
    return lambda: are_whole(files, path)


def pass_one(sock: socket.socket, ecn: bool, same_path: bool) -> None:
    ici = tcpcp.get(sock)
    tcpcp.release(sock)
    negotiated = dataclasses.replace(ici.negotiated, ecn=ecn)
    congestion = dataclasses.replace(ici.congestion, cwnd=77)
    wanted = dataclasses.replace(ici, negotiated=negotiated, congestion=congestion)
    made = tcpcp.create(wanted, same_path=same_path)
    info = tcp_repair.get_info(made)
    assert bool(info.options & tcp_repair.HAS_ECN) == ecn
    assert (info.snd_cwnd in (77, 78)) == same_path
    tcpcp.activate(made)
    made.sendall(b"alive")


@pytest.mark.parametrize("reused", (False, True))
@pytest.mark.parametrize("ecn, same_path", ((True, False), (False, True)))
def test_connections_are_passed_all_the_same(
    hosts: Hosts, tmp_path: Path, reused: bool, ecn: bool, same_path: bool
) -> None:
    pairs = [hosts.connect(), hosts.connect()]

    def check() -> bool:
        enter(hosts)
        use_all()
        numbers = [os.dup2(pair[0].fileno(), _KEPT + n) for n, pair in enumerate(pairs)]
        close_all()
        are_there = others(tmp_path / "own") if reused else nothing
        for number in numbers:
            pass_one(socket.socket(fileno=number), ecn, same_path)
        return are_there()

    with hosts.here.entered():
        if not congestion_state.prepare():
            pytest.skip(f"the kernel refuses struct_ops: {congestion_state._refused}")
    assert ended(in_child(check)) == 0
    for _, peer in pairs:
        peer.settimeout(3)
        assert peer.recv(10) == b"alive"
    assert_no_reset(hosts)


def test_a_filter_of_ones_own(hosts: Hosts, tmp_path: Path) -> None:
    """Through libnftables, whose context has a descriptor of its own."""
    path = tmp_path / "own"

    def check() -> bool:
        held = isolation.Isolation("own")
        enter(hosts)
        use_all()
        close_all()
        files = own_files(path)
        held.refresh()
        held.release()
        nft.close()
        return are_whole(files, path) and isolation.PREFIX not in nft.run("list tables")

    assert ended(in_child(check)) == 0


def test_two_objects_of_bpf_are_not_taken_for_each_other() -> None:
    """All of them have the same inode."""
    numbers = [bpf.array(4), bpf.array(4)]
    one = kept.Kept(numbers[0])
    assert one.is_ours
    os.dup2(numbers[1], numbers[0])
    assert not one.is_ours
    one.close()
    os.fstat(numbers[0])
    for number in numbers:
        os.close(number)
