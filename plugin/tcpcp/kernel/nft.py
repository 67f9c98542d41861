"""The kernel's packet filter, through libnftables in this process.

Running the `nft` program costs about 2 ms a time, which a frozen process would spend waiting; the library
does the same in a fraction of that. One call, :func:`run`, is one netlink batch: all of a script or
nothing of it comes into force.

Source: libnftables(3); src/libnftables.c of nftables 1.0.6.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from tcpcp.errors import IsolationError
from tcpcp.kernel import netfilter, nft_elements
from tcpcp.kernel.kept import Kept

#: libnftables keeps its parser's state and, before 1.0.9, its tables of names in global variables.
_lock = threading.Lock()


@functools.cache
def _library() -> Any:
    try:
        lib = ctypes.CDLL("libnftables.so.1")
    except OSError as exc:
        raise IsolationError(f"{exc}; install libnftables1") from exc
    lib.nft_ctx_new.restype = ctypes.c_void_p
    lib.nft_ctx_new.argtypes = [ctypes.c_uint32]
    lib.nft_ctx_free.restype = None
    lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(lib, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(lib, name).restype = ctypes.c_char_p
        getattr(lib, name).argtypes = [ctypes.c_void_p]
    return lib


def preload() -> None:
    """Load the library now, so that the first :func:`run` does not wait for the disk.

    :raises IsolationError: libnftables is not installed.
    """
    _library()


def run(script: str) -> str:
    """Carry out *script* in the calling thread's network namespace and return what it prints.

    :param script: text in the language of nft(8). It is not checked: build it only from integers, from
        addresses formatted by :mod:`ipaddress` and from names that were validated.
    :return: the output of the `list` commands in it, "" when there are none.
    :raises IsolationError: with nft's own message; nothing of the script is in force.
    """
    with _lock:
        return _run_in(_library(), _contexts.get(), script)


#: libnftables waits with select(2), which ends the process when its descriptor is not below this.
_FD_SETSIZE = 1024


def _reserve() -> Kept:
    """A low descriptor, kept for the netlink socket of a context opened when all the low ones are taken.

    None of the standard streams, although the program may have closed them.
    """
    try:
        opened = socket.socket(socket.AF_UNIX)
        if opened.fileno() > 2:
            return Kept(opened.detach())
        with opened:
            return Kept(fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 3))
    except OSError as exc:
        raise IsolationError(f"no descriptor for libnftables: {exc.strerror}", exc.errno or 0) from exc


class _Contexts:
    """The context of the network namespace that was used last.

    A context's netlink socket belongs to the namespace it was made in. It is kept, because to close it
    after a deletion waits for the kernel to free what was deleted, some 15 ms
    (net/netfilter/nf_tables_api.c nft_rcv_nl_event()); a kept one leaves that to a kernel worker.
    """

    def __init__(self) -> None:
        self.context: int | None = None
        self.namespace: tuple[int, int] | None = None
        self.socket: socket.socket | None = None
        self.asking: netfilter.Netlink | None = None
        self.reserved = _reserve()
        #: Of the context and of the socket; None where that is not known.
        self.of_context: Kept | None = None
        self.of_socket: Kept | None = None

    def get(self) -> int:
        status = os.stat("/proc/thread-self/ns/net")  # noqa: PTH116 - a Path costs more than the call
        namespace = (status.st_dev, status.st_ino)
        if self.context is None or namespace != self.namespace or not self._is_ours():
            self.close()
            self.context = self._open()
            self.namespace = namespace
        return self.context

    def netlink(self) -> socket.socket:
        """A socket for batches of our own, in the same namespace."""
        self.get()
        if self.socket is None:
            self.socket = netfilter.connect()
            self.of_socket = Kept(self.socket.fileno())
        return self.socket

    def questions(self) -> netfilter.Netlink:
        """One for questions, in the same namespace."""
        self.get()
        if self.asking is None:
            self.asking = netfilter.Netlink()
        return self.asking

    def _is_ours(self) -> bool:
        """Whether the program has closed none of the descriptors."""
        return all(one is None or one.is_ours for one in (self.of_context, self.of_socket, self.asking))

    def close(self) -> None:
        """What is somebody else's by now stays open; a context around such a number is left as it is."""
        if self.socket is not None:
            if self.of_socket is None or self.of_socket.is_ours:
                self.socket.close()
            else:
                self.socket.detach()
            self.socket = self.of_socket = None
        if self.asking is not None:
            self.asking.close()
            self.asking = None
        if self.context is not None:
            if self.of_context is None or self.of_context.is_ours:
                _library().nft_ctx_free(self.context)
            self.context = self.of_context = None
            if not self.reserved.is_ours:
                self.reserved = _reserve()

    def _open(self) -> int:
        lib = _library()
        if self.reserved.number >= _FD_SETSIZE or not self.reserved.is_ours:
            self.reserved.close()
            self.reserved = _reserve()
        if self.reserved.number >= _FD_SETSIZE:
            raise IsolationError(
                f"libnftables needs a descriptor below {_FD_SETSIZE} and all are in use; "
                "import tcpcp before opening so many"
            )
        self.reserved.close()
        lowest = _reserve()
        lowest.close()
        context: int | None = lib.nft_ctx_new(0)
        if not context:
            self.reserved = _reserve()
            raise IsolationError("nft_ctx_new failed: out of memory or no netlink socket")
        self.of_context = _netlink_at(lowest.number)
        if lib.nft_ctx_buffer_output(context) or lib.nft_ctx_buffer_error(context):
            raise IsolationError("libnftables: out of memory")
        return context


def _netlink_at(number: int) -> Kept | None:
    """The descriptor *number*, which was the lowest that was free, if a context has taken it; else None."""
    try:
        kept = Kept(number)
        with socket.socket(fileno=os.dup(number)) as found:
            same = found.family == socket.AF_NETLINK and found.proto == netfilter.PROTOCOL
    except OSError:
        return None
    return kept if same else None


_contexts = _Contexts()


def _after_fork() -> None:
    """The parent's socket is not for the child: answers would reach either of them."""
    global _lock
    _lock = threading.Lock()
    _contexts.close()


os.register_at_fork(after_in_child=_after_fork)


def change_elements(verb: str, table: str, sets: Mapping[str, Sequence[bytes]]) -> None:
    """Add to, or delete from, sets of the table inet *table*: all or nothing, in one batch.

    :param verb: ``add`` or ``delete``. :param sets: keys as bytes, by name of the set.
    :raises IsolationError: nothing has changed.
    """
    messages = nft_elements.changes(verb, table, sets)
    if not messages:
        return
    batch, expected = nft_elements.batch(messages), len(messages)
    with _lock:
        netlink = _contexts.netlink()
        try:
            netfilter.make_room(netlink, len(batch))
            netlink.send(batch)
            while expected > 0:
                for error in nft_elements.answers(netlink.recv(65536)):
                    if error:
                        raise OSError(error, os.strerror(error))
                    expected -= 1
        except OSError as exc:
            _contexts.close()  # answers may still be under way
            raise IsolationError(f"cannot {verb} elements of table {table}: {exc}") from exc


def has_element(table: str, set_: str, key: bytes) -> bool:
    """As :meth:`tcpcp.kernel.netfilter.Netlink.has`, in the calling thread's network namespace.

    :raises IsolationError, PermissionDenied: the kernel does not say.
    """
    with _lock:
        return _contexts.questions().has(table, set_, key)


def close() -> None:
    """Let go of the network namespace that was used last; the next :func:`run` opens one again."""
    with _lock:
        _contexts.close()


def _run_in(lib: Any, context: int, script: str) -> str:
    status = lib.nft_run_cmd_from_buffer(context, script.encode())
    output: bytes = lib.nft_ctx_get_output_buffer(context)
    if status:
        message: bytes = lib.nft_ctx_get_error_buffer(context)
        raise IsolationError(f"nft refused: {_first_lines(message.decode(errors='replace'))}")
    return output.decode(errors="replace")


def _first_lines(message: str) -> str:
    """nft repeats the whole line that it could not carry out; with 5000 elements that is no message."""
    lines = [line[:300] for line in message.splitlines() if line.strip()]
    return " / ".join(lines[:3]) or "no reason given"
