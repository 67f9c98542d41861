"""Gives a connection the congestion window and slow start threshold it had, and ECN (paper 5 and 8).

No socket option sets them. But a congestion control may, and a program with CAP_NET_ADMIN and CAP_BPF may be
one (struct_ops, Linux 5.6; with a link, 6.4): ours does nothing but write the three variables when a
connection chooses it. So a connection chooses it for a moment, and then its own again. The numbers pass
through a map of one element.

Best effort: where the kernel does not let us, :class:`tcpcp.endpoint.same_path.InitialWindows` sets the
window alone, and ECN is off, as RFC 3168 lets a sender choose at any time. BBR starts with a threshold of its
own (it uses none), so that is not kept.

Source: net/ipv4/bpf_tcp_ca.c, bpf_tcp_ca_btf_struct_access() for what may be written;
net/ipv4/tcp_cong.c tcp_reinit_congestion_control(); kernel/bpf/bpf_struct_ops.c.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import struct
import threading

from tcpcp.errors import KernelError
from tcpcp.kernel import bpf, tcp_repair
from tcpcp.kernel.bpf import Struct, instruction
from tcpcp.kernel.kept import Kept
from tcpcp.record.ici import Ici

#: cwnd, ssthresh; whether the connection marks.
_VALUES = struct.Struct("=3I")
_NO_THRESHOLD = 0x7FFFFFFF
_NAMES = ("tcp_congestion_ops", "bpf_struct_ops_tcp_congestion_ops", "tcp_sock")
_TCP_ECN_OK = 1
_ALWAYS_THERE = "reno"

_lock = threading.Lock()


class Setter:
    """A congestion control of our own, registered as long as this object, or this process, lives.

    :raises KernelError: the kernel does not let us; nothing is registered.
    """

    def __init__(self) -> None:
        self._name = f"tcpcp{secrets.token_hex(4)}"
        self._descriptors: list[Kept] = []
        self._given = b""
        try:
            self._values = self._registered()
        except BaseException:
            self.close()
            raise

    def _registered(self) -> int:
        """Its map. Only two descriptors are kept: the kernel holds the rest as long as the link is open."""
        found = bpf.structs(_NAMES)
        operations, outer, sock = (found[name] for name in _NAMES)
        values = self._keep(bpf.array(_VALUES.size))
        content = bytearray(outer.size)
        start = outer.offsets["data"]
        members = list(operations.offsets)
        with contextlib.ExitStack() as meanwhile:
            for member, program in _programs(sock, values).items():
                loaded = bpf.load(operations, members.index(member), program)
                meanwhile.callback(os.close, loaded)
                struct.pack_into("=Q", content, start + operations.offsets[member], loaded)
            struct.pack_into("16s", content, start + operations.offsets["name"], self._name.encode())
            map_ = bpf.operations(outer)
            meanwhile.callback(os.close, map_)
            bpf.update(map_, bytes(content))
            self._keep(bpf.link(map_))
        return values

    def _keep(self, descriptor: int) -> int:
        self._descriptors.append(Kept(descriptor))
        return descriptor

    @property
    def is_ours(self) -> bool:
        """Whether it is registered still: a daemon may have closed all descriptors that it found."""
        return all(one.is_ours for one in self._descriptors)

    def give(self, sock: socket.socket, algorithm: str, cwnd: int, ssthresh: int, ecn: bool) -> None:
        """Set the three on *sock*, which is connected; its congestion control then starts with them.

        :param algorithm: that congestion control. Not what the socket says it has: DCTCP that was chosen
            without ECN calls itself ``dctcp-reno``, which nobody can choose (net/ipv4/tcp_dctcp.c
            dctcp_init()). Chosen after ours, it finds ECN on.
        :raises KernelError: *algorithm* is not known here, or the kernel refused; the socket has *algorithm*,
            or if that was refused Reno, and its numbers may be any.
        """
        values = _VALUES.pack(cwnd, ssthresh, ecn)
        try:
            with _lock:
                if values != self._given:  # many connections that have been quiet have the same
                    self._given = b""
                    self._write(values, sock)
                    self._given = values
                tcp_repair.set_congestion(sock, self._name)
        finally:
            _choose(sock, algorithm)

    def _write(self, values: bytes, sock: socket.socket) -> None:
        try:
            bpf.update(self._values, values)
        except KernelError as exc:
            raise KernelError(exc.call, exc.errno, tcp_repair.describe(sock)) from exc

    def close(self) -> None:
        """Take the congestion control away; in a forked child, only the child's hold on it."""
        descriptors, self._descriptors = self._descriptors, []
        for one in reversed(descriptors):
            one.close()


def _choose(sock: socket.socket, algorithm: str) -> None:
    """*algorithm*, or where the kernel refuses it Reno, which it always has: only not ours."""
    try:
        tcp_repair.set_congestion(sock, algorithm)
    except KernelError:
        tcp_repair.set_congestion(sock, _ALWAYS_THERE)
        raise


_made: list[Setter] = []
_refused: list[KernelError] = []


def _in_child() -> None:
    """A child makes its own: two processes would overwrite each other's numbers in the map.

    Another thread of the parent may have held the lock. What the child closes stays registered: the parent
    has it open too.
    """
    global _lock
    _lock = threading.Lock()
    inherited = _made.copy()
    _made.clear()
    for one in inherited:
        one.close()


os.register_at_fork(after_in_child=_in_child)


def prepare() -> bool:
    """Register the congestion control of this process, once; that takes up to 0.1 s.

    Again, where the program has closed what it stood by.

    :return: whether there is one; False where the kernel refuses.
    """
    with _lock:
        if _made and not _made[0].is_ours:
            _made.pop().close()
        if not _made and not _refused:
            try:
                _made.append(Setter())
            except KernelError as exc:
                if exc.errno not in bpf.PASSING:
                    _refused.append(exc)
        return bool(_made)


def ready() -> bool:
    """Whether :func:`prepare` has been called and the kernel did not refuse."""
    return bool(_made)


_LOAD64, _LOAD32, _LOAD8, _STORE32, _STORE8 = 0x79, 0x61, 0x71, 0x63, 0x73
_LOAD_ADDRESS, _MAP_VALUE, _MOVE, _OR, _SKIP_IF_ZERO, _EXIT = 0x18, 2, 0xB7, 0x47, 0x15, 0x95


def _programs(sock: Struct, values: int) -> dict[str, bytes]:
    """What the kernel asks of a congestion control, and ``init``, which is called when it is chosen.

    Register 1 holds the arguments, the first of which is the socket.
    """
    end = instruction(_EXIT)
    nothing = instruction(_MOVE, 0, value=0) + end
    init = [
        instruction(_LOAD64, 6, 1),
        instruction(_LOAD_ADDRESS, 7, _MAP_VALUE, value=values),
        instruction(0),
        instruction(_LOAD32, 1, 7, 0),
        instruction(_STORE32, 6, 1, sock.offsets["snd_cwnd"]),
        instruction(_LOAD32, 1, 7, 4),
        instruction(_STORE32, 6, 1, sock.offsets["snd_ssthresh"]),
        instruction(_LOAD32, 1, 7, 8),
        instruction(_SKIP_IF_ZERO, 1, offset=3),
        instruction(_LOAD8, 1, 6, sock.offsets["ecn_flags"]),
        instruction(_OR, 1, value=_TCP_ECN_OK),
        instruction(_STORE8, 6, 1, sock.offsets["ecn_flags"]),
        nothing,
    ]
    undo = instruction(_LOAD64, 6, 1) + instruction(_LOAD32, 0, 6, sock.offsets["snd_cwnd"]) + end
    threshold = instruction(_MOVE, 0, value=_NO_THRESHOLD) + end
    return {"init": b"".join(init), "ssthresh": threshold, "undo_cwnd": undo, "cong_avoid": nothing}


#: A window beyond this is not restored: it was measured, but a burst of it is a burst.
MOST_SEGMENTS = 1 << 16
FEWEST_SEGMENTS = 2


def restore(sock: socket.socket, ici: Ici, *, same_path: bool) -> None:
    """Give *sock*, rebuilt and not yet running, what *ici* says of congestion control, and ECN.

    :param same_path: the window and threshold too. Nothing happens before :func:`prepare`, nor where the route to
        the peer has a congestion control that it locks: none can be chosen then.
    """
    if not _made or not (same_path or ici.negotiated.ecn):
        return
    wanted = ici.congestion
    cwnd, ssthresh = wanted.cwnd, wanted.ssthresh
    if not same_path:
        now = tcp_repair.get_info(sock)
        cwnd, ssthresh = now.snd_cwnd, now.snd_ssthresh
    cwnd = min(max(cwnd, FEWEST_SEGMENTS), MOST_SEGMENTS)
    ssthresh = min(max(ssthresh, FEWEST_SEGMENTS), _NO_THRESHOLD)
    algorithm = wanted.algorithm or tcp_repair.get_congestion(sock)
    try:
        _made[0].give(sock, algorithm, cwnd, ssthresh, ici.negotiated.ecn)
    except KernelError as exc:
        if exc.errno != errno.EPERM:
            raise
