"""The kernel's routing table, asked and changed by rtnetlink; and whether what is sent to an address stays here.

Source: rtnetlink(7); net/ipv4/route.c inet_rtm_getroute(), net/ipv6/route.c inet6_rtm_getroute().
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Collection, Iterator

from tcpcp.errors import KernelError

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 20, 21, 22, 24, 25, 26
ACK, REPLACE, EXCL, CREATE = 0x4, 0x100, 0x200, 0x400
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_METRICS, _RTA_MARK = 1, 4, 5, 8, 16
UNICAST, _LOCAL = 1, 2
U32 = struct.Struct("=I")

#: struct rtmsg, with which the body of every message begins.
RTMSG = struct.Struct("=8BI")
_NLMSGHDR = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _DUMP, _CHANGED = 0x1, 0x300, 0x10
_DUMP_BYTES = 1 << 17
_ANSWER_S = 1.0
_ATTEMPTS = 5


def netlink() -> socket.socket:
    """A socket to ask by, in the calling thread's network namespace.

    :raises OSError: there is no descriptor left.
    """
    asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    asking.settimeout(_ANSWER_S)
    return asking


def stays_here(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, device: str, mark: int) -> bool:
    """Whether a packet with *mark* that this host sends to *ip* is delivered to this host, and to no other.

    A socket may be bound to an address that this host has not (IP_TRANSPARENT, IP_FREEBIND,
    net.ipv4.ip_nonlocal_bind), so that its own address says nothing about that. About 20 us.

    :param device: interface that a link-local address belongs to, or "".
    :raises KernelError: there is no descriptor left, or no such interface, or the kernel does not answer.
    """
    rest = attribute(_RTA_MARK, U32.pack(mark))
    try:
        if device:
            rest += attribute(RTA_OIF, U32.pack(socket.if_nametoindex(device)))
        with netlink() as asking:
            found = ask(asking, RTM_GETROUTE, 0, route(ip.packed, 0, 0, 0, rest))
    except OSError as exc:
        raise KernelError(f"RTM_GETROUTE to {ip}", exc.errno or errno.ETIMEDOUT) from exc
    return not isinstance(found, int) and kind_of(found) == _LOCAL


def kind_of(found: bytes) -> int:
    """The type of a route that :func:`ask` has returned, rtm_type."""
    return found[7]


def route(destination: bytes, table: int, protocol: int, scope: int, rest: bytes) -> bytes:
    """A message's body: a unicast route to one host, or where *table* is 0 the question for it."""
    family = socket.AF_INET if len(destination) == 4 else socket.AF_INET6
    kind = UNICAST if table else 0
    header = RTMSG.pack(family, len(destination) * 8, 0, 0, table, protocol, scope, kind, 0)
    return header + attribute(RTA_DST, destination) + rest


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, filled up so that another one may follow."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(found: bytes, begin: int = RTMSG.size) -> Iterator[tuple[int, bytes]]:
    """Those of a route, up to the first that makes no sense.

    :param begin: where they begin in something else than a route.
    """
    offset = begin
    while offset + _ATTRIBUTE.size <= len(found):
        length, kind = _ATTRIBUTE.unpack_from(found, offset)
        if length < _ATTRIBUTE.size or offset + length > len(found):
            return
        yield kind, found[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def ask(asking: socket.socket, kind: int, flags: int, body: bytes) -> bytes | int:
    """The answer's body, at least a whole struct rtmsg, or an error number; 0 is success.

    :raises OSError: there is none.
    """
    asking.send(_NLMSGHDR.pack(_NLMSGHDR.size + len(body), kind, _REQUEST | flags, 1, 0) + body)
    return answer(asking.recv(65536))


def answer(datagram: bytes) -> bytes | int:
    """As :func:`ask`; EBADMSG when it is too short for a route."""
    least = _NLMSGHDR.size + _ERROR.size
    if len(datagram) < least:
        return errno.EBADMSG
    length, kind, _, _, _ = _NLMSGHDR.unpack_from(datagram)
    if kind == _NLMSG_ERROR:
        return -int(_ERROR.unpack_from(datagram, _NLMSGHDR.size)[0])
    body = datagram[_NLMSGHDR.size : length]
    return body if len(body) >= RTMSG.size else errno.EBADMSG


def dump(asking: socket.socket, question: bytes, kind: int = RTM_GETROUTE) -> list[bytes] | None:
    """The bodies of all routes that *question*, a body itself, asks for; or of what else *kind* does.

    :return: None: they have changed meanwhile, so that some may be missing.
    :raises OSError: the kernel does not say.
    """
    header = _NLMSGHDR.pack(_NLMSGHDR.size + len(question), kind, _REQUEST | _DUMP, 1, 0)
    asking.send(header + question)
    bodies: list[bytes] = []
    whole = True
    while True:
        for told, flags, body in messages(asking.recv(_DUMP_BYTES)):
            if told == _NLMSG_ERROR:
                number = -_ERROR.unpack_from(body)[0] if len(body) >= _ERROR.size else errno.EBADMSG
                raise OSError(number, os.strerror(number))
            whole = whole and not flags & _CHANGED
            if told == _NLMSG_DONE:
                return bodies if whole else None
            bodies.append(body)


def whole(asking: socket.socket, question: bytes, kind: int, what: str) -> list[bytes]:
    """As :func:`dump`, again if they have changed meanwhile.

    :param what: they are called in an error. :raises OSError: the kernel does not say, or they change all the time.
    """
    for _ in range(_ATTEMPTS):
        if (found := dump(asking, question, kind)) is not None:
            return found
    raise OSError(errno.EINTR, f"the {what} change all the time")


def change(kind: int, flags: int, body: bytes, harmless: Collection[int] = ()) -> None:
    """Have the kernel make or remove something, in the calling thread's network namespace.

    :param harmless: refusals that are none. :raises OSError: the kernel refuses it.
    """
    with netlink() as asking:
        found = ask(asking, kind, ACK | flags, body)
    number = found if isinstance(found, int) else errno.EBADMSG
    if number and number not in harmless:
        raise OSError(number, os.strerror(number))


def messages(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and body of each."""
    offset = 0
    while offset + _NLMSGHDR.size <= len(datagram):
        length, kind, flags, _, _ = _NLMSGHDR.unpack_from(datagram, offset)
        yield kind, flags, datagram[offset + _NLMSGHDR.size : offset + length]
        offset += max((length + 3) & ~3, _NLMSGHDR.size)
