"""A control group's BPF program may make up what getpeername() says: the packets' addresses are what counts.

And it may take bind() and connect() elsewhere, as those of service meshes do with all that goes out.
"""

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
from passing import assert_no_reset

import tcpcp
from tcpcp.endpoint import reader
from tcpcp.errors import KernelError
from tcpcp.kernel import bpf
from tcpcp.kernel.bpf import instruction

#: include/uapi/linux/bpf.h BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_PROG_ATTACH, BPF_CGROUP_INET4_...
_SOCK_ADDR, _ATTACH, _BIND, _CONNECT, _GETPEERNAME = 18, 8, 8, 10, 29
_MADE_UP = ipaddress.IPv4Address("10.66.6.6")
#: struct bpf_sock_addr.
_USER_IP4, _USER_PORT = 4, 24
_PORT = 15001


def program(field: int, value: bytes) -> bytes:
    """Stores *value*, 4 bytes, in struct bpf_sock_addr; then 1: permitted."""
    return b"".join(
        (
            instruction(0xB4, 2, value=struct.unpack("=i", value)[0]),
            instruction(0x63, 1, 2, field),
            instruction(0xB7, 0, value=1),
            instruction(0x95),
        )
    )


@contextlib.contextmanager
def group_of(hook: int, code: bytes) -> Iterator[Path]:
    """A control group with the program *code* at *hook*."""
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        subprocess.run(["mount", "-t", "cgroup2", "none", place], check=True)
        stack.callback(subprocess.run, ["umount", place], check=True)
        group = Path(place, f"tcpcp-test-{os.getpid()}")
        group.mkdir()
        stack.callback(group.rmdir)
        try:
            loaded = bpf._load(_SOCK_ADDR, hook, 0, code)
        except KernelError:
            pytest.skip("this kernel has no such programs")
        stack.callback(os.close, loaded)
        directory = os.open(group, os.O_RDONLY)
        stack.callback(os.close, directory)
        bpf._call(_ATTACH, "attach", struct.pack("=4I", directory, loaded, hook, 0))
        yield group


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group in which every peer seems to have another address."""
    with group_of(_GETPEERNAME, program(_USER_IP4, _MADE_UP.packed)) as made:
        yield made


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


@pytest.mark.parametrize("hook", [_CONNECT, _BIND])
def test_what_is_taken_elsewhere_is_refused(hosts: Hosts, hook: int) -> None:
    """And nothing is sent: the peer has its connection still when it is created where nobody does that."""
    sock, peer = hosts.connect()
    peer.send(b"before")
    with hosts.here.entered(), group_of(hook, program(_USER_PORT, struct.pack("!Hxx", _PORT))) as group:
        ici = tcpcp.get(sock)
        tcpcp.release(sock)

        def check() -> bool:
            (group / "cgroup.procs").write_text(str(os.getpid()))
            with pytest.raises(tcpcp.Unsupported, match=f"led elsewhere.*{_PORT}"):
                tcpcp.create(ici)
            return True

        assert ended(in_child(check)) == 0
        made = tcpcp.create(ici)
        tcpcp.activate(made)
    made.sendall(b"after")
    peer.settimeout(5)
    assert peer.recv(5, socket.MSG_WAITALL) == b"after"
    assert made.recv(6, socket.MSG_WAITALL) == b"before"
    assert_no_reset(hosts)
