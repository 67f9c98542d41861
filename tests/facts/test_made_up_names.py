"""A control group's BPF program may make up what getpeername() says: the packets' addresses are what counts."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from forking import ended, in_child
from netns import Hosts

import tcpcp
from tcpcp.endpoint import reader
from tcpcp.errors import KernelError
from tcpcp.kernel import bpf
from tcpcp.kernel.bpf import instruction

#: include/uapi/linux/bpf.h BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_GETPEERNAME, BPF_PROG_ATTACH.
_SOCK_ADDR, _GETPEERNAME, _ATTACH = 18, 29, 8
_MADE_UP = ipaddress.IPv4Address("10.66.6.6")
#: struct bpf_sock_addr user_ip4; then 1: permitted.
_PROGRAM = b"".join(
    (
        instruction(0xB4, 2, value=struct.unpack("=i", _MADE_UP.packed)[0]),
        instruction(0x63, 1, 2, 4),
        instruction(0xB7, 0, value=1),
        instruction(0x95),
    )
)


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group in which every peer seems to have another address."""
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        subprocess.run(["mount", "-t", "cgroup2", "none", place], check=True)
        stack.callback(subprocess.run, ["umount", place], check=True)
        group = Path(place, f"tcpcp-test-{os.getpid()}")
        group.mkdir()
        stack.callback(group.rmdir)
        try:
            program = bpf._load(_SOCK_ADDR, _GETPEERNAME, 0, _PROGRAM)
        except KernelError:
            pytest.skip("this kernel has no such programs")
        stack.callback(os.close, program)
        directory = os.open(group, os.O_RDONLY)
        stack.callback(os.close, directory)
        bpf._call(_ATTACH, "attach", struct.pack("=4I", directory, program, _GETPEERNAME, 0))
        yield group


def test_what_the_packets_have_is_isolated_and_recorded(hosts: Hosts, group: Path) -> None:
    def check() -> bool:
        (group / "cgroup.procs").write_text(str(os.getpid()))
        return all(is_passed(hosts) for _ in range(2))  # the first of its kind, and one that is like it

    assert ended(in_child(check)) == 0


def is_passed(hosts: Hosts) -> bool:
    sock, peer = hosts.connect()
    assert sock.getpeername()[0] == str(_MADE_UP)
    with hosts.here.entered():
        ici = tcpcp.get(sock)
        peer.send(b"in the gap")
        is_isolated = reader.position(sock)[0] == ici.rcv_nxt
        tcpcp.release(sock)
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    made.settimeout(5)
    got = made.recv(10, socket.MSG_WAITALL)
    return is_isolated and str(ici.peer.ip) == "10.9.0.2" and got == b"in the gap"
