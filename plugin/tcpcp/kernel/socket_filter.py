"""The program that an application attached to a socket with SO_ATTACH_FILTER: classic BPF.

SO_GET_FILTER counts in instructions, not bytes, so Python's own getsockopt would have the kernel write behind
its buffer: the C function is called with a buffer that holds as many instructions as it names.

In an ICI an instruction is 8 bytes, big-endian; in the kernel it is struct sock_filter of the machine.

Source: net/core/filter.c sk_get_filter(), sk_attach_filter(); include/uapi/linux/filter.h.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct

from tcpcp.errors import KernelError, Unsupported
from tcpcp.kernel import tcp_repair

SO_ATTACH_FILTER = SO_GET_FILTER = 26
INSTRUCTION = struct.Struct(">HBBI")
_NATIVE = struct.Struct("=HBBI")

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def get(sock: socket.socket) -> bytes:
    """The program attached to *sock*, or b"".

    :raises Unsupported: it is an eBPF program, which the kernel does not give out.
    """
    count = _get(sock, None, 0)
    if not count:
        return b""
    buffer = ctypes.create_string_buffer(count * _NATIVE.size)
    count = _get(sock, buffer, count)
    native = buffer.raw[: count * _NATIVE.size]
    return b"".join(INSTRUCTION.pack(*one) for one in _NATIVE.iter_unpack(native))


def _get(sock: socket.socket, buffer: ctypes.Array[ctypes.c_char] | None, count: int) -> int:
    length = ctypes.c_uint(count)
    if _libc.getsockopt(sock.fileno(), socket.SOL_SOCKET, SO_GET_FILTER, buffer, ctypes.byref(length)):
        number = ctypes.get_errno()
        if number == errno.EACCES:
            raise Unsupported(f"{tcp_repair.describe(sock)}: an eBPF filter cannot be read from the kernel")
        raise KernelError("getsockopt(SO_GET_FILTER)", number, tcp_repair.describe(sock))
    return length.value


def attach(sock: socket.socket, program: bytes) -> None:
    """Attach *program*, 8 bytes an instruction as in an ICI, to *sock*.

    :raises KernelError: EINVAL, the kernel's check refused it.
    """
    native = b"".join(_NATIVE.pack(*one) for one in INSTRUCTION.iter_unpack(program))
    argument = _Program(len(program) // INSTRUCTION.size, native)
    tcp_repair.set_bytes(sock, socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(argument), "SO_ATTACH_FILTER")
