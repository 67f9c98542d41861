"""The peer's last timestamp of each connection, ``ts_recent``, which no socket option tells (paper 4.5).

An endpoint that is rebuilt without it echoes 0 until the peer has spoken. A BPF program that is called for
each TCP socket of the network namespace writes down its cookie and its ``ts_recent``: one pass reads those of
thousands. Best effort: where the kernel does not let us, ts_recent stays unknown.

Source: net/ipv4/tcp_ipv4.c bpf_iter_tcp; bpf-helpers(7); SO_COOKIE.
"""

from __future__ import annotations

import os
import struct

from tcpcp import bpf
from tcpcp.bpf import instruction
from tcpcp.errors import KernelError

_FOUND = struct.Struct("=QQ")
_NAMES = ("bpf_iter_tcp", "sock_common", "tcp_sock", "tcp_options_received")
#: struct bpf_iter__tcp and struct bpf_iter_meta: pointers of 8 bytes on every machine (__bpf_md_ptr).
_META, _SK_COMMON, _SEQ = 0, 8, 0
_CHUNK_BYTES = 1 << 16

_LOAD64, _LOAD32, _STORE64, _MOVE_FROM, _MOVE, _ADD = 0x79, 0x61, 0x7B, 0xBF, 0xB7, 0x07
_SKIP_IF_ZERO, _CALL, _EXIT = 0x15, 0x85, 0x95
_SEQ_WRITE, _SKC_TO_TCP_SOCK = 127, 137


class Table:
    """The timestamps of all connections of a network namespace.

    :raises KernelError: the kernel does not let us.
    """

    def __init__(self) -> None:
        known = bpf.structs(_NAMES)
        _, common, sock, options = (known[name].offsets for name in _NAMES)
        program = _program(common["skc_cookie"], sock["rx_opt"] + options["ts_recent"])
        self._link = bpf.iterator(known["bpf_iter_tcp"], program)

    def read(self) -> dict[int, int]:
        """SO_COOKIE -> ts_recent, of the sockets whose cookie somebody has asked for.

        :raises KernelError: the pass could not be made.
        """
        descriptor = bpf.run(self._link)
        parts = []
        try:
            while part := os.read(descriptor, _CHUNK_BYTES):
                parts.append(part)
        except OSError as exc:
            raise KernelError("read(bpf iterator)", exc.errno or 0) from exc
        finally:
            os.close(descriptor)
        return stamps(b"".join(parts))

    def close(self) -> None:
        """Take the program away."""
        os.close(self._link)


def stamps(data: bytes) -> dict[int, int]:
    """What the program wrote: cookie -> ts_recent; a last pair that is cut is left out."""
    return dict(_FOUND.iter_unpack(data[: len(data) - len(data) % _FOUND.size]))


_made: list[Table] = []
_refused: list[KernelError] = []


def prepare() -> None:
    """Load the program of this process, once; that takes up to 0.1 s. Nothing where the kernel refuses."""
    if not _made and not _refused:
        try:
            _made.append(Table())
        except KernelError as exc:
            _refused.append(exc)


def read() -> dict[int, int]:
    """:meth:`Table.read`, if :func:`prepare` was called before and the kernel did not refuse; else nothing."""
    try:
        return _made[0].read() if _made else {}
    except KernelError:
        return {}


def _program(cookie: int, recent: int) -> bytes:
    """Register 1 holds struct bpf_iter__tcp, register 10 the end of the stack."""
    write = [
        instruction(_MOVE_FROM, 1, 7),
        instruction(_CALL, value=_SKC_TO_TCP_SOCK),
        instruction(_SKIP_IF_ZERO, 0, offset=11),
        instruction(_LOAD64, 1, 0, cookie),
        instruction(_SKIP_IF_ZERO, 1, offset=9),
        instruction(_STORE64, 10, 1, -16),
        instruction(_LOAD32, 1, 0, recent),
        instruction(_STORE64, 10, 1, -8),
        instruction(_LOAD64, 1, 6, _META),
        instruction(_LOAD64, 1, 1, _SEQ),
        instruction(_MOVE_FROM, 2, 10),
        instruction(_ADD, 2, value=-16),
        instruction(_MOVE, 3, value=_FOUND.size),
        instruction(_CALL, value=_SEQ_WRITE),
    ]
    start = [
        instruction(_MOVE_FROM, 6, 1),
        instruction(_LOAD64, 7, 6, _SK_COMMON),
        instruction(_SKIP_IF_ZERO, 7, offset=len(write)),
    ]
    return b"".join([*start, *write, instruction(_MOVE, 0), instruction(_EXIT)])
