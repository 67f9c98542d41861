"""What a socket is, by one call: fields that socket options tell slowly, or not at all.

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

import contextlib
import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tcpcp.errors import KernelError
from tcpcp.kernel import bpf, diag, socket_layout, tcp_repair
from tcpcp.kernel.kept import Kept
from tcpcp.kernel.socket_layout import SLOT_BYTES
from tcpcp.kernel.socket_program import program
from tcpcp.record.ici import State

if TYPE_CHECKING:
    from _typeshed import HasFileno


class Fields(NamedTuple):
    """Of one socket; None: not known, or it is no TCP socket.

    :ivar ts_recent: the peer's last timestamp, in its ticks; says nothing without the option.
    :ivar keyed: keys of TCP-MD5 or TCP-AO are set on the socket.
    :ivar policed: it has an IPsec policy of its own (IP_XFRM_POLICY), or inherited its listener's.
    :ivar owned: it is in a map of sockets of a BPF program, which may take what comes for it.
    """

    ts_recent: int | None = None
    keyed: bool | None = None
    policed: bool | None = None
    owned: bool | None = None

    @property
    def refused(self) -> str:
        """Why such a socket cannot be passed, or ""."""
        if self.keyed:
            return KEYED
        if self.policed:
            return POLICED
        return OWNED if self.owned else ""


UNKNOWN = Fields()
KEYED = "TCP-MD5 or TCP-AO: its keys are not passed"
POLICED = (
    "an IPsec policy of its own: no call reads it, and without it, it would be sent what must not be sent"
)
OWNED = "in a map of sockets of a BPF program (sockmap), which would miss it and may have bytes of it; take it out"
_Answer = TypeVar("_Answer")


class Seen(NamedTuple):
    """What a TCP socket is; what packets change of it is in :class:`Numbers`.

    :ivar cookie: 0 before anybody has asked for it.
    :ivar ends: bytes from which follow both ends, for :func:`tcpcp.endpoint.socket_ends.ends_in`.
    :ivar settings: bytes from which follow what kind of socket it is, its state, whether there is anything
        special about it (:func:`is_special`), and its options, but for those that `fingerprint` names. Compare
        them only, and only for as long as no sysctl is changed: an option may mean what one of these says.
    """

    cookie: int
    ends: bytes
    settings: bytes


class Numbers(NamedTuple):
    """What packets change, with the kernel's names. Of a socket in repair mode, that is isolated, it stays.

    :ivar snd_up: ``snd_una`` while nothing that waits for an acknowledgement is urgent (tcp_urg_mode()).
    :ivar srtt_us: eighths of it. :ivar mdev_us: fourths.
    :ivar recent_stamp: when ``ts_recent`` came, s, by the kernel's CLOCK_MONOTONIC, as all times here. That of the
        program is another one where it is in a time namespace.
    :ivar wstamp_ns: when the last segment left; where the connection is paced, when the next one may.
    :ivar clock_ns: the clock of that, when it was last looked at.
    :ivar txhash: what says the same of all that is sent, and only that; it changes where the path is given up.
    :ivar agreed: bytes from which follows what the handshake fixed; compare them only.
    :ivar flow_label: of IPv6, one that was chosen, as in the packet's header; 0: none.
    :ivar now_ns: when all this was read.
    """

    write_seq: int
    snd_nxt: int
    snd_una: int
    rcv_nxt: int
    state: int
    urgent: int
    snd_up: int
    copied_seq: int
    snd_wl1: int
    snd_wnd: int
    max_window: int
    rcv_wnd: int
    rcv_wup: int
    snd_cwnd: int
    snd_ssthresh: int
    srtt_us: int
    mdev_us: int
    sndbuf: int
    rcvbuf: int
    window_clamp: int
    ts_recent: int
    recent_stamp: int
    wstamp_ns: int
    clock_ns: int
    ecn_flags: int
    txhash: int
    md5: int
    ao: int
    policy_in: int
    policy_out: int
    owner: int
    agreed: bytes
    flow_label: int
    now_ns: int


#: The descriptor asked for; then not 0 if it is a TCP socket of ours.
_ASKED_BYTES = 8
_SPECIAL_BYTES = 8 * SLOT_BYTES


def is_special(seen: Seen) -> bool:
    """Whether a direction is shut, there is a filter, urgent data, a key or a policy, or it is in a map."""
    return seen.settings[:_SPECIAL_BYTES] != bytes(_SPECIAL_BYTES)


class Reader:
    """The programs, one for each question, loaded as long as this object is open.

    :ivar whole: it reads all; else only what :class:`Fields` needs.
    :raises KernelError: the kernel does not let us.
    """

    def __init__(self) -> None:
        layout = socket_layout.of_kernel()
        self.whole = layout.whole
        settings = [*layout.special, *layout.settings]
        settings_bytes = SLOT_BYTES * len([*settings, *layout.ipv6_settings])
        self._seen = struct.Struct(f"={_ASKED_BYTES}xQ{SLOT_BYTES * len(layout.ends)}s{settings_bytes}s")
        numbers = [*layout.numbers, *layout.refused]
        agreed_bytes = SLOT_BYTES * len(layout.agreed)
        self._numbers = struct.Struct(f"={_ASKED_BYTES}x{len(numbers)}Q{agreed_bytes}s2Q")
        looking = program(layout, [*layout.cookie, *layout.ends, *settings], layout.ipv6_settings)
        counting = program(layout, [*numbers, *layout.agreed], layout.ipv6_numbers, timed=True)
        self._numbers_program = bpf.syscall_program(counting)
        try:
            self._seen_program = bpf.syscall_program(looking)
        except KernelError:
            os.close(self._numbers_program)
            raise
        self._askers: dict[int, list[_Asker]] = {self._numbers_program: [], self._seen_program: []}
        self._kept = [Kept(self._numbers_program), Kept(self._seen_program)]

    def look(self, descriptors: Iterable[int]) -> list[Seen | None]:
        """What each is, in the same order; None for what is no TCP socket. From any thread.

        :raises KernelError: the program could not be run.
        """
        known: dict[bytes, bytes] = {}
        answers: list[Seen | None] = []
        with self._asking(self._seen_program, self._seen.size) as (ask, context):
            unpack, keep, append = self._seen.unpack, known.setdefault, answers.append
            for descriptor in descriptors:
                if not ask(descriptor):
                    append(None)
                    continue
                cookie, ends, settings = unpack(context)
                # Thousands have the same: so they are kept once.
                append(Seen(cookie, ends, keep(settings, settings)))
        return answers

    def numbers(self, descriptors: Iterable[int]) -> list[Numbers | None]:
        """As :meth:`look`, what packets change."""
        with self._asking(self._numbers_program, self._numbers.size) as (ask, context):
            unpack, make = self._numbers.unpack, Numbers._make
            return [make(unpack(context)) if ask(one) else None for one in descriptors]

    def read(self, descriptors: Iterable[int]) -> list[Fields]:
        """The fields of each, in the same order; from any thread.

        :raises KernelError: the program could not be run.
        """
        return [
            Fields(
                one.ts_recent,
                bool(one.md5 or one.ao),
                bool(one.policy_in or one.policy_out),
                bool(one.owner),
            )
            if one
            else UNKNOWN
            for one in self.numbers(descriptors)
        ]

    @contextlib.contextmanager
    def _asking(self, program_: int, size_bytes: int) -> Iterator[_Asker]:
        """What asks for a descriptor; nobody else has the same until it is given back."""
        spare = self._askers[program_]
        try:
            asker = spare.pop()
        except IndexError:
            asker = _asker(program_, size_bytes)
        yield asker
        spare.append(asker)

    @property
    def is_ours(self) -> bool:
        """Whether the programs are there still."""
        return all(one.is_ours for one in self._kept)

    def close(self) -> None:
        """Take the programs away."""
        for one in self._kept:
            one.close()


#: What asks for a descriptor, and says whether it was found; and the buffer that has the answer then.
_Asker = tuple[Callable[[int], int], ctypes.Array[ctypes.c_char]]


def _asker(program_: int, size_bytes: int) -> _Asker:
    context = ctypes.create_string_buffer(size_bytes)
    asked, found = ctypes.c_uint32.from_buffer(context), ctypes.c_uint32.from_buffer(context, 4)
    run = bpf.Call(program_, context).run

    def ask(descriptor: int) -> int:
        asked.value, found.value = descriptor, 0
        run()
        return found.value

    return ask, context


_made: list[Reader] = []
_refused: list[KernelError] = []
_lock = threading.Lock()


def prepare() -> None:
    """Load the program of this process, once; that takes up to 0.1 s. Nothing where the kernel refuses."""
    with _lock:
        if _made and not _made[0].is_ours:
            _made.clear()  # a daemon has closed all its descriptors, ours too
        if not _made and not _refused:
            try:
                _made.append(Reader())
            except KernelError as exc:
                if exc.errno not in bpf.PASSING:
                    _refused.append(exc)


def ready() -> bool:
    """Whether :func:`prepare` has been called and the kernel did not refuse."""
    return bool(_made)


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
    return _asked(lambda reader: reader.read(descriptors)) or [UNKNOWN] * len(descriptors)


def look(socks: Sequence[HasFileno]) -> Sequence[Seen | None]:
    """What each of *socks* is, which are descriptors of this process, in the same order.

    :return: None for what is no TCP socket; None for all as where :func:`read` finds nothing, and where this
        kernel has not got all the fields.
    """
    descriptors = [sock.fileno() for sock in socks]
    found = _asked(lambda reader: reader.look(descriptors) if reader.whole else [])
    return found or [None] * len(descriptors)


def numbers(socks: Sequence[HasFileno]) -> Sequence[Numbers | None]:
    """As :func:`look`, what packets change."""
    descriptors = [sock.fileno() for sock in socks]
    found = _asked(lambda reader: reader.numbers(descriptors) if reader.whole else [])
    return found or [None] * len(descriptors)


def _asked(question: Callable[[Reader], list[_Answer]]) -> list[_Answer]:
    """The answers, or none."""
    try:
        return question(_made[0])
    except IndexError:
        pass
    except KernelError as exc:
        if exc.errno in _NOT_OURS:
            _made.clear()  # somebody has closed all descriptors, ours too: the next prepare() loads it again
    return []


def refused(socks: Iterable[socket.socket]) -> list[str]:
    """Why each of *socks* cannot be passed, in the same order: what :attr:`Fields.refused` says, or "".

    Where the program does not tell, the kernel's socket table is asked, which knows TCP-MD5 only; TCP-AO shows
    in getsockopt(TCP_AO_INFO). A policy, or a map, shows nowhere else.

    :param socks: TCP sockets of the calling thread's network namespace; with CAP_NET_ADMIN, without which the
        table is silent about keys.
    :raises KernelError: the table has no answer, for one that is not closed.
    """
    asked = list(socks)
    return [
        KEYED * _keyed_by_table(sock) if fields.keyed is None else fields.refused
        for sock, fields in zip(asked, read(asked), strict=True)
    ]


def _keyed_by_table(sock: socket.socket) -> bool:
    try:
        return diag.one(sock).md5
    except KernelError as exc:
        # A connection that has ended is in no table, and its socket will not send anything any more.
        if exc.errno in (*diag.NOT_IN_TABLE, errno.ENOTCONN) and tcp_repair.get_state(sock) == State.CLOSE:
            return False
        raise
