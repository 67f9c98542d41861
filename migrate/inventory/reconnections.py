"""Connections of the tree to unix sockets of programs that stay, and what is needed to make each anew elsewhere.

Above all the stream of a service to the journal: the standard output and error of whatever systemd has started. Its
beginning says for whom the lines are; journald keeps that in a file, to go on after a restart of its own.

Source: systemd's src/journal/journald-stream.c stdout_stream_line(), stdout_stream_save(); man systemd.exec(5),
SyslogIdentifier=; criu/sk-unix.c open_unix_sk(), which sets nothing of a socket that it was given.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from migrate.inventory import names, proc
from migrate.pb.session_pb2 import ProcessInventory, Reconnection
from migrate.processes import unix_diag
from migrate.processes.unix_diag import UnixSocket
from tcpcp.criu.tree import HeldSocket

#: Of journald, also of one with a namespace (LogNamespace=).
_JOURNAL = re.compile(r"/run/systemd/journal(\.[^/]+)?/stdout")
_KINDS = frozenset({socket.SOCK_STREAM, socket.SOCK_SEQPACKET})
#: SO_SNDBUF, SO_RCVBUF, SO_PRIORITY, SO_PASSCRED, SO_RCVTIMEO, SO_SNDTIMEO, and how many bytes each has.
_OPTIONS = {7: 4, 8: 4, 12: 4, 16: 4, 20: 16, 21: 16}
#: What systemd writes for a service that says nothing else: daemon.info, "<3>" at the beginning of a line counts.
_USUAL = {"PRIORITY": "30", "LEVEL_PREFIX": "1"}
_HEADER = (
    "IDENTIFIER",
    "UNIT",
    "PRIORITY",
    "LEVEL_PREFIX",
    "FORWARD_TO_SYSLOG",
    "FORWARD_TO_KMSG",
    "FORWARD_TO_CONSOLE",
)
_ESCAPED = re.compile(r"\\([0-7]{3}|.)")
_TEXTS = frozenset({"IDENTIFIER", "UNIT"})


def is_journal(name: str) -> bool:
    """Whether a unix socket of that name is where journald takes streams of lines."""
    return _JOURNAL.fullmatch(name) is not None


def reached(table: Mapping[int, UnixSocket], inode: int) -> str:
    """The path at which another one can be had of what the socket *inode* is connected to; "" for none.

    :param table: see :func:`migrate.processes.unix_diag.sockets`.
    """
    own = table[inode]
    other = table.get(own.peer)
    if other is None or other.peer != inode or own.name or own.waiting or own.kind not in _KINDS:
        return ""
    shut = unix_diag.RECEIVING if is_journal(other.name) else 0
    return other.name if own.shut == shut and names.is_at(other, other.name) else ""


def of_unix(
    sock: socket.socket, held: HeldSocket, table: Mapping[int, UnixSocket], name: str
) -> Reconnection:
    """What is needed to make anew the connection *sock* to *name*.

    :raises Gone: its process has ended.
    """
    pid, fd = held.holders[0]
    own, journal, status = table[held.inode], is_journal(name), proc.status(pid)
    found = Reconnection(inode=held.inode, name=name, pid=pid, fd=fd, socket_type=own.kind)
    found.nonblocking = bool(proc.fdinfo(pid, fd).flags & os.O_NONBLOCK)
    # What journald has not read yet it reads here when the process has moved.
    found.busy = bool(own.unread or (own.unsent and not journal))
    for number, size in _OPTIONS.items():
        found.options[number] = sock.getsockopt(socket.SOL_SOCKET, number, size)
    if journal:
        state = Path(name).with_name("streams") / f"{os.fstat(sock.fileno()).st_dev}:{own.peer}"
        found.opening = header(_read(state), proc.stat(pid).comm)
    else:
        found.uid, found.gid = (int(status[of].split()[1]) for of in ("Uid", "Gid"))
    return found


def header(state: str, program: str) -> bytes:
    """What a stream to the journal begins with.

    :param state: what journald keeps of the one before; "" where it keeps nothing. :param program: its name else.
    """
    pairs = (line.partition("=") for line in state.splitlines())
    said = _USUAL | {"IDENTIFIER": "" if state else program} | {name: value for name, _, value in pairs}
    lines = (_text(said.get(one, "")) if one in _TEXTS else _number(said.get(one, "")) for one in _HEADER)
    return "".join(f"{line}\n" for line in lines).encode()


def _text(escaped: str) -> str:
    text = _ESCAPED.sub(lambda found: _character(found[1]), escaped)
    return text if text.isprintable() else ""


def _character(escape: str) -> str:
    return chr(int(escape, 8)) if len(escape) > 1 else escape


def _number(text: str) -> str:
    return text if text.isascii() and text.isdecimal() and len(text) <= 3 else "0"  # noqa: PLR2004


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def deaf(process: ProcessInventory) -> Iterator[str]:
    """The paths at which connections of *process* cannot be made anew here: nobody listens, or not so.

    :raises KernelError: the kernel's table cannot be read.
    """
    wanted = {(one.name, one.socket_type): one for one in process.reconnections}
    table = unix_diag.sockets().values() if wanted else ()
    listening = [one for one in table if one.listening]
    for name, kind in wanted:
        if not any(one.kind == kind and names.is_at(one, name) for one in listening):
            yield name


def left(found: Iterable[Reconnection], apart: Iterable[tuple[int, int]]) -> list[Reconnection]:
    """Those of *found* that are still of a descriptor (PID, number) of *apart*."""
    known = set(apart)
    return [one for one in found if (one.pid, one.fd) in known]
