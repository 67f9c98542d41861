"""What no socket option tells of a connection: the peer's last timestamp, and whether there are keys.

An endpoint that is rebuilt without ``ts_recent`` echoes 0 until the peer has spoken (paper 4.5); one with keys
of TCP-MD5 or TCP-AO (RFC 2385, RFC 5925) cannot be rebuilt at all. A BPF program of ours looks a descriptor of
the calling process up, as the kernel itself does, and reads the fields of the socket behind it: 2 us for each.
Best effort: where the kernel does not let us, they stay unknown.

The program gets one descriptor and gives its answer in a buffer of the caller's, and keeps nothing. So any
number of threads may run it at once, and a forked child goes on with the one it has inherited.

Source: kernel/bpf/syscall.c BPF_PROG_TYPE_SYSCALL (Linux 5.14); net/bpf/test_run.c
bpf_prog_test_run_syscall(); bpf-helpers(7); fs/file.c files_lookup_fd_raw().
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from tcpcp import bpf, diag, tcp_repair
from tcpcp.bpf import Offsets, Struct, instruction
from tcpcp.errors import KernelError
from tcpcp.ici import State

if TYPE_CHECKING:
    from _typeshed import HasFileno


class Fields(NamedTuple):
    """Of one socket; None: not known, or it is no TCP socket.

    :ivar ts_recent: the peer's last timestamp, in its ticks; says nothing without the option.
    :ivar keyed: keys of TCP-MD5 or TCP-AO are set on the socket.
    """

    ts_recent: int | None = None
    keyed: bool | None = None


UNKNOWN = Fields()

#: The descriptor asked for; 1 if it is a TCP socket of ours; ts_recent; 1 if it has keys.
_CONTEXT = struct.Struct("=4I")
_DESCRIPTOR, _FOUND, _TS_RECENT, _KEYED = 0, 4, 8, 12

_NAMES = ("task_struct", "files_struct", "fdtable", "file", "socket", "sock", "sock_common", "tcp_sock")
_OPTIONS = "tcp_options_received"
#: A kernel that is built without the one or the other has no such member.
_KEYS = ("md5sig_info", "ao_info")


class Reader:
    """The program, loaded as long as this object is open.

    :raises KernelError: the kernel does not let us.
    """

    def __init__(self) -> None:
        self._program = bpf.syscall_program(_program(bpf.structs((*_NAMES, _OPTIONS))))

    def read(self, descriptors: Iterable[int]) -> list[Fields]:
        """The fields of each, in the same order; from any thread.

        :raises KernelError: the program could not be run.
        """
        context = ctypes.create_string_buffer(_CONTEXT.size)
        call = bpf.Call(self._program, context)
        answers = []
        for descriptor in descriptors:
            _CONTEXT.pack_into(context, 0, descriptor & 0xFFFFFFFF, 0, 0, 0)
            call.run()
            _, found, recent, keys = _CONTEXT.unpack_from(context)
            answers.append(Fields(recent, bool(keys)) if found else UNKNOWN)
        return answers

    def close(self) -> None:
        """Take the program away."""
        os.close(self._program)


_made: list[Reader] = []
_refused: list[KernelError] = []
_lock = threading.Lock()


def prepare() -> None:
    """Load the program of this process, once; that takes up to 0.1 s. Nothing where the kernel refuses."""
    with _lock:
        if not _made and not _refused:
            try:
                _made.append(Reader())
            except KernelError as exc:
                _refused.append(exc)


#: What the kernel says of a descriptor that is closed, or no program.
_NOT_OURS = (errno.EBADF, errno.EINVAL)


def _in_child() -> None:
    """Another thread of the parent may have held the lock. The program itself is as good here as there."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_in_child)


def read(socks: Iterable[HasFileno]) -> list[Fields]:
    """The fields of each of *socks*, which are descriptors of this process, in the same order.

    :return: all :data:`UNKNOWN` where :func:`prepare` was not called before, or the kernel refused.
    """
    descriptors = [sock.fileno() for sock in socks]
    try:
        return _made[0].read(descriptors)
    except IndexError:
        pass
    except KernelError as exc:
        if exc.errno in _NOT_OURS:
            _made.clear()  # somebody has closed all descriptors, ours too: the next prepare() loads it again
    return [UNKNOWN] * len(descriptors)


def keyed(socks: Iterable[socket.socket]) -> list[bool]:
    """Whether keys of TCP-MD5, or TCP-AO, are set on each of *socks*, in the same order.

    Where the program does not tell, the kernel's socket table is asked, which knows TCP-MD5 only; TCP-AO shows
    in getsockopt(TCP_AO_INFO).

    :param socks: TCP sockets of the calling thread's network namespace; with CAP_NET_ADMIN, without which the
        table is silent about keys.
    :raises KernelError: the table has no answer, for one that is not closed.
    """
    asked = list(socks)
    return [
        _keyed_by_table(sock) if fields.keyed is None else fields.keyed
        for sock, fields in zip(asked, read(asked), strict=True)
    ]


def _keyed_by_table(sock: socket.socket) -> bool:
    try:
        return diag.one(sock).md5
    except KernelError as exc:
        # A connection that has ended is in no table, and its socket will not send anything any more.
        if exc.errno in _NOT_IN_TABLE and tcp_repair.get_state(sock) == State.CLOSE:
            return False
        raise


#: There is no such connection, or it is another socket's; or the socket has none.
_NOT_IN_TABLE = (errno.ENOENT, errno.ESTALE, errno.ENOTCONN)


_LOAD32, _LOAD16, _LOAD64, _STORE32 = 0x61, 0x69, 0x79, 0x63
_MOVE_FROM, _MOVE, _ADD, _ADD_FROM, _SHIFT_LEFT = 0xBF, 0xB7, 0x07, 0x0F, 0x67
_IF_EQUAL, _IF_SAME, _IF_GREATER, _CALL, _EXIT = 0x15, 0x1D, 0x2D, 0x85, 0x95
_GET_CURRENT_TASK, _PROBE_READ_KERNEL = 35, 113
_BYTES = {_LOAD16: 2, _LOAD32: 4, _LOAD64: 8}
_POINTER_SHIFT = 3

#: The program ends and has found nothing.
_GIVE_UP = instruction(_MOVE, 0, value=0) + instruction(_EXIT)
_INSTRUCTION_BYTES = 8
_PAST_GIVE_UP = len(_GIVE_UP) // _INSTRUCTION_BYTES


def _follow(kind: Struct, member: str, *, at: int = 0, load: int = _LOAD64) -> bytes:
    """Register 3, the address of a *kind*, becomes what its *member* holds; 1, 2, 4 and 5 are lost.

    The helper reads any address and fails where there is nothing: nothing that is freed or overwritten in
    this moment does harm.
    """
    return b"".join([
        instruction(_ADD, 3, value=kind.offsets[member] + at),
        instruction(_MOVE_FROM, 1, 10),
        instruction(_ADD, 1, value=-8),
        instruction(_MOVE, 2, value=_BYTES[load]),
        instruction(_CALL, value=_PROBE_READ_KERNEL),
        instruction(_IF_EQUAL, 0, value=0, offset=_PAST_GIVE_UP),
        _GIVE_UP,
        instruction(load, 3, 10, -8),
    ])  # fmt: skip


def _only_if(code: int, register: int, other: int = 0, value: int = 0) -> bytes:
    return instruction(code, register, other, _PAST_GIVE_UP, value) + _GIVE_UP


def _copy(to: int, source: int) -> bytes:
    return instruction(_MOVE_FROM, to, source)


def _program(known: Mapping[str, Struct]) -> bytes:
    """Register 1 holds the context, which goes to 6; register 9 holds the socket when it is found."""
    return b"".join([
        _copy(6, 1),
        _find_file(known),
        _find_sock(known),
        _check_tcp(known),
        _copy(3, 9),
        _follow(known["tcp_sock"], "rx_opt", at=known[_OPTIONS].offsets["ts_recent"], load=_LOAD32),
        instruction(_STORE32, 6, 3, _TS_RECENT),
        *(_look_for_keys(known["tcp_sock"], member) for member in _KEYS),
        instruction(_MOVE, 3, value=1),
        instruction(_STORE32, 6, 3, _FOUND),
        _GIVE_UP,
    ])  # fmt: skip


def _find_file(known: Mapping[str, Struct]) -> bytes:
    """Register 3 becomes the address of the struct file of the descriptor."""
    table = known["fdtable"]
    pointer = Struct(0, 8, Offsets({"": 0}))
    return b"".join([
        instruction(_LOAD32, 7, 6, _DESCRIPTOR),
        instruction(_CALL, value=_GET_CURRENT_TASK),
        _copy(3, 0),
        _follow(known["task_struct"], "files"),
        _follow(known["files_struct"], "fdt"),
        _copy(8, 3),
        _follow(table, "max_fds", load=_LOAD32),
        _only_if(_IF_GREATER, 3, 7),
        _copy(3, 8),
        _follow(table, "fd"),
        instruction(_SHIFT_LEFT, 7, value=_POINTER_SHIFT),
        instruction(_ADD_FROM, 3, 7),
        _follow(pointer, ""),
    ])  # fmt: skip


def _find_sock(known: Mapping[str, Struct]) -> bytes:
    """Register 9 becomes the address of the struct sock of the file in register 3.

    What a file's private data is only its owner knows. A struct socket points back to its file, and a
    struct sock back to its socket: so nothing else is taken for one.
    """
    return b"".join([
        _copy(9, 3),
        _follow(known["file"], "private_data"),
        _copy(8, 3),
        _follow(known["socket"], "file"),
        _only_if(_IF_SAME, 3, 9),
        _copy(3, 8),
        _follow(known["socket"], "sk"),
        _copy(9, 3),
        _follow(known["sock"], "sk_socket"),
        _only_if(_IF_SAME, 3, 8),
    ])  # fmt: skip


def _check_tcp(known: Mapping[str, Struct]) -> bytes:
    """The socket in register 9 is a struct tcp_sock; as net/core/filter.c bpf_skc_to_tcp_sock() decides it."""
    sock = known["sock"]
    return b"".join([
        _copy(3, 9),
        _follow(sock, "sk_protocol", load=_LOAD16),
        _only_if(_IF_EQUAL, 3, value=socket.IPPROTO_TCP),
        _copy(3, 9),
        _follow(sock, "sk_type", load=_LOAD16),
        _only_if(_IF_EQUAL, 3, value=socket.SOCK_STREAM),
        _copy(3, 9),
        _follow(sock, "__sk_common", at=known["sock_common"].offsets["skc_family"], load=_LOAD16),
        instruction(_IF_EQUAL, 3, value=socket.AF_INET, offset=1 + _PAST_GIVE_UP),
        _only_if(_IF_EQUAL, 3, value=socket.AF_INET6),
    ])  # fmt: skip


def _look_for_keys(sock: Struct, member: str) -> bytes:
    if member not in sock.offsets:
        return b""
    mark = instruction(_MOVE, 3, value=1) + instruction(_STORE32, 6, 3, _KEYED)
    skip = instruction(_IF_EQUAL, 3, value=0, offset=len(mark) // _INSTRUCTION_BYTES)
    return _copy(3, 9) + _follow(sock, member) + skip + mark
