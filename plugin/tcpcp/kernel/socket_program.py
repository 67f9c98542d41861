"""The BPF program that finds the socket of a descriptor and reads its fields: instructions. Pure.

Register 6 holds the context, which the answer goes to: the descriptor, whether it was found, then slots of 8
bytes. Register 9 holds the socket when it is found.

Source: bpf-helpers(7); include/uapi/linux/bpf.h; fs/file.c files_lookup_fd_raw().
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from tcpcp.kernel.bpf import instruction
from tcpcp.kernel.btf import Extent
from tcpcp.kernel.socket_layout import SLOT_BYTES, Layout

_LOAD8, _LOAD32, _LOAD16, _LOAD64, _STORE32, _STORE64 = 0x71, 0x61, 0x69, 0x79, 0x63, 0x7B
_MOVE_FROM, _MOVE, _ADD, _ADD_FROM, _SHIFT_LEFT = 0xBF, 0xB7, 0x07, 0x0F, 0x67
_IF_EQUAL, _IF_SAME, _IF_GREATER, _CALL, _EXIT = 0x15, 0x1D, 0x2D, 0x85, 0x95
_KTIME_GET_NS, _GET_CURRENT_TASK, _PROBE_READ_KERNEL = 5, 35, 113
_LOADS = {1: _LOAD8, 2: _LOAD16, 4: _LOAD32, 8: _LOAD64}
_POINTER_SHIFT = 3

_DESCRIPTOR, _FOUND, _SLOTS = 0, 4, 8

#: A program's stack has 512 bytes. What is read at once is in this part, below what :func:`_follow` uses.
_AT_ONCE_BYTES = 256
_STACK = -8 - _AT_ONCE_BYTES
#: It takes less to read some bytes more than to read twice.
_GAP_BYTES = 64

#: The program ends and has found nothing.
_GIVE_UP = instruction(_MOVE, 0, value=0) + instruction(_EXIT)
_INSTRUCTION_BYTES = 8
_PAST_GIVE_UP = len(_GIVE_UP) // _INSTRUCTION_BYTES


def program(
    layout: Layout,
    slots: Sequence[Extent | None],
    ipv6_slots: Sequence[Extent | None] = (),
    *,
    timed: bool = False,
) -> bytes:
    """For :func:`tcpcp.kernel.bpf.syscall_program`: reads *slots*, and *ipv6_slots* of what an IPv6 socket
    has besides.

    :param timed: behind all of them the time goes, ns by the kernel's CLOCK_MONOTONIC.

    To read all of a socket takes four times as long as to find it, where it is in no cache: read what is needed.
    """
    behind = _placed(ipv6_slots, _SLOTS + SLOT_BYTES * len(slots))
    return b"".join([
        _copy(6, 1),
        _find_file(layout),
        _find_sock(layout),
        _check_tcp(layout),
        *_read(9, _placed(slots, _SLOTS)),
        _read_behind(layout.pinet6, behind),
        _tell_time(_SLOTS + SLOT_BYTES * (len(slots) + len(ipv6_slots))) if timed else b"",
        instruction(_MOVE, 3, value=1),
        instruction(_STORE32, 6, 3, _FOUND),
        _GIVE_UP,
    ])  # fmt: skip


def _placed(slots: Sequence[Extent | None], first: int) -> list[tuple[Extent, int]]:
    """Those that there are, with their places in the context."""
    return [(one, first + SLOT_BYTES * n) for n, one in enumerate(slots) if one]


def _copy(to: int, source: int) -> bytes:
    return instruction(_MOVE_FROM, to, source)


def _fetch(size: int, stack: int) -> bytes:
    """*size* bytes from the address in register 3 to the stack; 0 to 5 are lost.

    The helper reads any address and fails where there is nothing: nothing that is freed or overwritten in
    this moment does harm.
    """
    return b"".join([
        _copy(1, 10),
        instruction(_ADD, 1, value=stack),
        instruction(_MOVE, 2, value=size),
        instruction(_CALL, value=_PROBE_READ_KERNEL),
        instruction(_IF_EQUAL, 0, value=0, offset=_PAST_GIVE_UP),
        _GIVE_UP,
    ])  # fmt: skip


def _follow(member: Extent) -> bytes:
    """Register 3, the address of a struct, becomes what its *member* holds; 1, 2, 4 and 5 are lost."""
    return b"".join([
        instruction(_ADD, 3, value=member.offset),
        _fetch(member.size, -8),
        instruction(_LOADS[member.size], 3, 10, -8),
    ])  # fmt: skip


def _only_if(code: int, register: int, other: int = 0, value: int = 0) -> bytes:
    return instruction(code, register, other, _PAST_GIVE_UP, value) + _GIVE_UP


_Slots = Sequence[tuple[Extent, int]]


def _read(register: int, slots: _Slots) -> Iterator[bytes]:
    """Pieces of what is at the address in *register*, each to its place in the context."""
    for start, run in _runs(slots):
        end = max(one.offset + one.size for one, _ in run)
        yield _copy(3, register) + instruction(_ADD, 3, value=start) + _fetch(end - start, _STACK)
        for one, place in run:
            yield instruction(_LOADS[one.size], 3, 10, _STACK + one.offset - start)
            yield instruction(_STORE64, 6, 3, place)


def _runs(slots: _Slots) -> list[tuple[int, list[tuple[Extent, int]]]]:
    """What is read at once: from where on, and what of it is wanted. The stack is as aligned as the struct."""
    runs: list[tuple[int, list[tuple[Extent, int]]]] = []
    end = -_GAP_BYTES
    for one, place in sorted(slots):
        last = one.offset + one.size
        if not runs or one.offset - end > _GAP_BYTES or last - runs[-1][0] > _AT_ONCE_BYTES:
            runs.append((one.offset & -8, []))
        runs[-1][1].append((one, place))
        end = max(end, last)
    return runs


def _read_behind(pointer: Extent | None, slots: _Slots) -> bytes:
    """What an IPv6 socket has besides; of another those places are 0."""
    if pointer is None or not slots:
        return b""
    body = b"".join(_read(7, slots))
    return b"".join([
        instruction(_MOVE, 3, value=0),
        *(instruction(_STORE64, 6, 3, place) for _, place in slots),
        _copy(3, 9),
        _follow(pointer),
        _copy(7, 3),
        instruction(_IF_EQUAL, 7, value=0, offset=len(body) // _INSTRUCTION_BYTES),
        body,
    ])  # fmt: skip


def _tell_time(place: int) -> bytes:
    return instruction(_CALL, value=_KTIME_GET_NS) + instruction(_STORE64, 6, 0, place)


def _find_file(layout: Layout) -> bytes:
    """Register 3 becomes the address of the struct file of the descriptor."""
    way = layout.way
    return b"".join([
        instruction(_LOAD32, 7, 6, _DESCRIPTOR),
        instruction(_CALL, value=_GET_CURRENT_TASK),
        _copy(3, 0),
        _follow(way["task_struct.files"]),
        _follow(way["files_struct.fdt"]),
        _copy(8, 3),
        _follow(way["fdtable.max_fds"]),
        _only_if(_IF_GREATER, 3, 7),
        _copy(3, 8),
        _follow(way["fdtable.fd"]),
        instruction(_SHIFT_LEFT, 7, value=_POINTER_SHIFT),
        instruction(_ADD_FROM, 3, 7),
        _follow(Extent(0, 8)),
    ])  # fmt: skip


def _find_sock(layout: Layout) -> bytes:
    """Register 9 becomes the address of the struct sock of the file in register 3.

    What a file's private data is only its owner knows. A struct socket points back to its file, and a
    struct sock back to its socket: so nothing else is taken for one.
    """
    way = layout.way
    return b"".join([
        _copy(9, 3),
        _follow(way["file.private_data"]),
        _copy(8, 3),
        _follow(way["socket.file"]),
        _only_if(_IF_SAME, 3, 9),
        _copy(3, 8),
        _follow(way["socket.sk"]),
        _copy(9, 3),
        _follow(way["sock.sk_socket"]),
        _only_if(_IF_SAME, 3, 8),
    ])  # fmt: skip


def _check_tcp(layout: Layout) -> bytes:
    """The socket in register 9 is a struct tcp_sock; as net/core/filter.c bpf_skc_to_tcp_sock() decides it."""
    way = layout.way
    return b"".join([
        _copy(3, 9),
        _follow(way["sock.sk_protocol"]),
        _only_if(_IF_EQUAL, 3, value=socket.IPPROTO_TCP),
        _copy(3, 9),
        _follow(way["sock.sk_type"]),
        _only_if(_IF_EQUAL, 3, value=socket.SOCK_STREAM),
        _copy(3, 9),
        _follow(way["sock.__sk_common.skc_family"]),
        instruction(_IF_EQUAL, 3, value=socket.AF_INET, offset=1 + _PAST_GIVE_UP),
        _only_if(_IF_EQUAL, 3, value=socket.AF_INET6),
    ])  # fmt: skip
