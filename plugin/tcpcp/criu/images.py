"""Ici <-> CRIU's images: compile a connection into a tcp-stream image, and edit those around it.

With ``tcp_close`` CRIU's dump leaves TCP alone. To have its restore rebuild the connections from ICIs,
its images are completed with the functions here, bytes in and bytes out::

    inventory.img           patch_inventory()   clear tcp_close, else restore shuts every connection
    files.img               inet_sockets()      which inode is which connection
                            patch_files()       the state that the ICI has, not the one of the dump
    tcp-stream-<inode>.img  tcp_stream()        one per connection; the name is tcp_stream_name()

Source: CRIU's images/{inventory,fdinfo,sk-inet,tcp-stream}.proto, criu/sk-tcp.c restore_tcp_conn_state(),
soccr/soccr.c libsoccr_set_sk_data_noq() and libsoccr_restore(); lib/pycriu/images/images.py for the framing.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, EncodeError

from tcpcp.errors import CodecError
from tcpcp.record import addresses, seq
from tcpcp.record.ici import (
    FIN_IN,
    FIN_OUT,
    Endpoint,
    Ici,
    State,
)
from tcpcp.record.option_names import OPTIONS, Option

try:
    from pycriu.images import magic, pb
except ImportError:
    # Not needed before there are images; who drives CRIU says that it is missing before there are any.
    magic = pb = None

#: include/uapi/linux/tcp.h TCPI_OPT_*: bits of tcp_info.tcpi_options, which CRIU stores as opt_mask.
TCPI_OPT_TIMESTAMPS, TCPI_OPT_SACK, TCPI_OPT_WSCALE, TCPI_OPT_ECN, TCPI_OPT_USEC_TS = 1, 2, 4, 8, 64
#: soccr.c SNDQ_FIRST_FIN | SNDQ_SECOND_FIN and RCVQ_FIRST_FIN | RCVQ_SECOND_FIN: in these states soccr takes
#: one off outq_seq and inq_seq for a FIN. CLOSE: closed by both sides, with bytes that are still to be read.
_SOCCR_FIN_OUT = FIN_OUT | {State.CLOSE}
_SOCCR_FIN_IN = FIN_IN | {State.CLOSE}
#: soccr.c SNDQ_FIN_ACKED: the peer has acknowledged our FIN.
_SOCCR_FIN_ACKED = frozenset({State.FIN_WAIT2, State.CLOSE})
#: States that libsoccr can rebuild.
RESTORABLE = FIN_OUT | FIN_IN | {State.ESTABLISHED, State.CLOSE}

_AF_INET, _AF_INET6, _IPPROTO_TCP, _SOCK_STREAM = 2, 10, 6, 1
_SHUTDOWN_BOTH = 3
#: Fields of an inet_sk_entry, where older CRIU has them and newer; unsigned, so what is below 0 is very large.
_KEEPALIVE = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
_FROM_SYSCTL = {
    "opts": {name.lower(): OPTIONS[name] for name in _KEEPALIVE},
    "tcp_opts": {name.lower().removeprefix("tcp_"): OPTIONS[name] for name in _KEEPALIVE},
}
_U32 = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class InetSocket:
    """A TCP socket as files.img describes it.

    :ivar inode: its inode on the origin, which also names its tcp-stream image.
    :ivar ipv6: the socket is AF_INET6; IPv4-mapped addresses are written as IPv4.
    :ivar ipv6_only: IPV6_V6ONLY is set: bound to no address, it takes no IPv4 connections.
    :ivar state: state when CRIU collected the sockets, shortly after the freeze.
    :ivar device: interface that CRIU will bind an IPv6 link-local address to, or "".
    :ivar local: our end, the unspecified address and port 0 when unbound; :ivar peer: likewise.
    """

    inode: int
    ipv6: bool
    ipv6_only: bool
    state: State
    device: str
    local: Endpoint
    peer: Endpoint

    @property
    def connected(self) -> bool:
        """Whether CRIU rebuilds it from a tcp-stream image: sk-inet.c tcp_connection()."""
        return self.peer.port != 0


def tcp_stream_name(inode: int) -> str:
    """The name of the tcp-stream image of a socket (criu/image-desc.c)."""
    return f"tcp-stream-{inode:x}.img"


def tcp_stream(ici: Ici, *, more: int = 0) -> bytes:
    """The tcp-stream image from which CRIU's restore rebuilds *ici*.

    The inet_sk entry of files.img must have the same state; see :func:`patch_files`. Not held by the
    image, so to be set on the restored socket: ``timestamp.ts_recent``, ``congestion``, ``options``.

    :param more: put so many bytes in front of what was sent; who restores has them acknowledged, which gives the
        connection a round-trip time, or takes them out (:func:`tcpcp.endpoint.restored.finish_restored`).
    :raises CodecError: a state that libsoccr cannot rebuild, or a value over 32 bits.
    """
    if ici.state not in RESTORABLE:
        raise CodecError(f"{ici}: CRIU cannot rebuild a connection in state {ici.state.name}")
    queues = (ici.receive_queue.data, bytes(more), ici.send_queue.sent, ici.send_queue.unsent)
    fields = _stream_fields(ici)
    fields["outq_len"] += more
    try:
        entry = pb.tcp_stream_entry(**fields).SerializeToString()
    except (ValueError, TypeError, EncodeError) as error:
        raise CodecError(f"{ici}: does not fit a tcp-stream image: {error}") from None
    head = _U32.pack(magic.by_name["IMG_COMMON"]) + _U32.pack(magic.by_name["TCP_STREAM"])
    return b"".join((head, _U32.pack(len(entry)), entry, *queues))


def _stream_fields(ici: Ici) -> dict[str, int]:
    unread, sent, unsent = ici.receive_queue.data, ici.send_queue.sent, ici.send_queue.unsent
    # soccr finds the start of a queue as seq - len - (1 in the states with a FIN); so we go the other way.
    # A FIN that the peer has acknowledged is before snd_una, and counts in it.
    fin_out = ici.state in _SOCCR_FIN_OUT and ici.state not in _SOCCR_FIN_ACKED
    fields = {
        "inq_len": len(unread),
        "inq_seq": seq.add(ici.copied_seq, len(unread) + (ici.state in _SOCCR_FIN_IN)),
        "outq_len": len(sent) + len(unsent),
        "outq_seq": seq.add(ici.snd_una, len(sent) + len(unsent) + fin_out),
        "unsq_len": len(unsent),
        "opt_mask": _opt_mask(ici),
        "mss_clamp": ici.negotiated.mss_clamp,
        "snd_wscale": ici.negotiated.snd_wscale,
        "rcv_wscale": ici.negotiated.rcv_wscale,
        "snd_wl1": ici.window.snd_wl1,
        "snd_wnd": ici.window.snd_wnd,
        "max_window": ici.window.max_window,
        "rcv_wnd": ici.window.rcv_wnd,
        "rcv_wup": ici.window.rcv_wup,
    }
    if ici.negotiated.timestamps and ici.timestamp:
        fields["timestamp"] = ici.timestamp.value
    return fields


def _opt_mask(ici: Ici) -> int:
    """Window scaling is always in it, with shifts of 0 if there is none.

    Without, soccr gives the kernel no TCPOPT_WINDOW, and the shift that connect() has computed from the sysctls
    of the destination stays: the windows on the wire are then that much smaller than they are meant.
    """
    fixed = ici.negotiated
    return (
        fixed.timestamps * TCPI_OPT_TIMESTAMPS
        | fixed.sack * TCPI_OPT_SACK
        | TCPI_OPT_WSCALE
        | fixed.ecn * TCPI_OPT_ECN
        | (ici.timestamp is not None and ici.timestamp.microseconds) * TCPI_OPT_USEC_TS
    )


def inet_sockets(files: bytes, state: State | None = None) -> Iterator[InetSocket]:
    """The TCP sockets of files.img, listening ones and unconnected ones too, or only those in *state*.

    :raises CodecError: no files image, or a malformed one.
    """
    for _, entry in _records(files, "FILES", pb.file_entry):
        if not entry.HasField("isk"):
            continue
        isk = entry.isk
        if isk.proto == _IPPROTO_TCP and isk.type == _SOCK_STREAM and state in (None, isk.state):
            yield _inet_socket(isk)


def _inet_socket(isk: Any) -> InetSocket:
    if isk.family not in (_AF_INET, _AF_INET6):
        raise CodecError(f"files image: socket {isk.ino:x}: expected family 2 or 10, found {isk.family}")
    try:
        state = State(isk.state)
    except ValueError:
        raise CodecError(f"files image: socket {isk.ino:x}: unknown state {isk.state}") from None
    if not isinstance(isk.ifname, str):  # protobuf gives bytes where a string of proto2 is not UTF-8
        raise CodecError(f"files image: socket {isk.ino:x}: expected a name of an interface")
    local = Endpoint(_address(isk, isk.src_addr), isk.src_port)
    peer = Endpoint(_address(isk, isk.dst_addr), isk.dst_port)
    ipv6 = isk.family == _AF_INET6
    return InetSocket(isk.ino, ipv6, isk.v6only, state, isk.ifname, local, peer)


def _address(isk: Any, words: Collection[int]) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """CRIU keeps an address as the words of memory in which the kernel had it in network order."""
    expected = 4 if isk.family == _AF_INET6 else 1
    if len(words) != expected:
        raise CodecError(f"files image: socket {isk.ino:x}: {len(words)} address words, expected {expected}")
    return addresses.address(struct.pack(f"<{expected}I", *words))


def patch_files(files: bytes, states: Mapping[int, State], closed: Collection[int] = ()) -> bytes:
    """files.img with the states of its sockets replaced, and without options that no socket can be given.

    What a sysctl says is in CRIU's images as if the program had set it, and restore would set it, which the kernel
    refuses where it is more than setsockopt() takes: so nothing could be restored. The sockets that it restores
    start with what this host's sysctl says (:func:`tcpcp.endpoint.option_setters.put` sees to the rest).

    :param states: inode -> the state in the socket's ICI; CRIU's restore takes the state from here only.
    :param closed: inodes of sockets without a connection. One that had a connection at the dump, and has
        nothing left to be read, becomes an unconnected socket, shut down in both directions, and needs no
        tcp-stream image; the others stay as they are.
    :raises CodecError: a malformed image, or a connection that is not in it.
    """
    left = set(states)
    parts, start = [], 0
    for end, entry in _records(files, "FILES", pb.file_entry):
        known = entry.HasField("isk") and (
            entry.isk.ino in left or (entry.isk.ino in closed and entry.isk.dst_port)
        )
        if known:
            left.discard(entry.isk.ino)
            _patch_socket(entry.isk, states, closed)
        if (entry.HasField("isk") and _clear_unsettable(entry.isk)) or known:
            message = entry.SerializeToString()
            parts.append(_U32.pack(len(message)) + message)
        else:
            parts.append(files[start or 8 : end])
        start = end
    if left:
        missing = ", ".join(f"{inode:x}" for inode in sorted(left))
        raise CodecError(f"files image: no socket with inode {missing}")
    return files[:8] + b"".join(parts)


def _patch_socket(isk: Any, states: Mapping[int, State], closed: Collection[int]) -> None:
    if isk.ino not in closed:
        isk.state = states[isk.ino]
        return
    isk.state, isk.shutdown = State.CLOSE, _SHUTDOWN_BOTH
    isk.src_port = isk.dst_port = 0
    for words in (isk.src_addr, isk.dst_addr):
        words[:] = [0] * len(words)


def _clear_unsettable(isk: Any) -> bool:
    """Whether there was one."""
    found = [
        (part, field)
        for part, options in _parts(isk)
        for field, option in options.items()
        if part.HasField(field) and not option.is_settable(getattr(part, field))
    ]
    for part, field in found:
        part.ClearField(field)
    return bool(found)


def _parts(isk: Any) -> Iterator[tuple[Any, dict[str, Option]]]:
    """The parts with options from sysctls, as far as this version of CRIU has them."""
    for name, options in _FROM_SYSCTL.items():
        if name in isk.DESCRIPTOR.fields_by_name and isk.HasField(name):
            yield getattr(isk, name), options


def patch_inventory(inventory: bytes) -> bytes:
    """inventory.img with ``tcp_close`` cleared, so that restore rebuilds connections instead of closing them.

    :raises CodecError: no inventory image, or a malformed one.
    """
    entry = _inventory(inventory)
    entry.ClearField("tcp_close")
    message: bytes = entry.SerializeToString()
    return inventory[:4] + _U32.pack(len(message)) + message


def closes(inventory: bytes) -> bool:
    """Whether a restore shuts every connection, which is what the dump was told.

    :raises CodecError: no inventory image, or a malformed one.
    """
    return bool(_inventory(inventory).tcp_close)


def _inventory(image: bytes) -> Any:
    entries = [entry for _, entry in _records(image, "INVENTORY", pb.inventory_entry)]
    if len(entries) != 1:
        raise CodecError(f"inventory image: expected one entry, found {len(entries)}")
    return entries[0]


def _records(data: bytes, kind: str, message: Any) -> Iterator[tuple[int, Any]]:
    """Each entry of an image with the offset after it."""
    offset = _after_magic(data, kind)
    while offset < len(data):
        where, offset = offset, offset + 4
        size = _U32.unpack_from(data, where)[0] if offset <= len(data) else 0
        if offset + size > len(data):
            raise CodecError(f"{kind} image: offset {where}: cut short")
        entry = message()
        try:
            entry.ParseFromString(data[offset : offset + size])
        except DecodeError:
            raise CodecError(f"{kind} image: offset {where}: expected an entry of {size} bytes") from None
        if not entry.IsInitialized():
            raise CodecError(f"{kind} image: offset {where}: a required field is missing")
        offset += size
        yield offset, entry


def _after_magic(data: bytes, kind: str) -> int:
    """The inventory has one magic number, all other images a common one before their own."""
    kinds = [kind] if kind == "INVENTORY" else ["IMG_COMMON", kind]
    expected = b"".join(_U32.pack(magic.by_name[name]) for name in kinds)
    found = data[: len(expected)]
    if found != expected:
        raise CodecError(f"offset 0: expected a CRIU image, {kind} {expected.hex()}, found {found.hex()}")
    return len(expected)
