"""A program whose sockets have every option that can be set to another value, and says what they have.

``every_option.py ADDRESS PORT [KIND...]`` makes sockets of each kind three times: as it comes, one whose options
are set in the order of their numbers, one in the reverse order, since some exclude each other. A connection to PORT
gets a line of JSON for each byte: how each was set, and what getsockopt() says of each number of each level.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator

LIBC = ctypes.CDLL(None, use_errno=True)
SOCKET, IP, ICMP, TCP, UDP, IPV6, ICMPV6, UDPLITE, RAW, NETLINK = 1, 0, 1, 6, 17, 41, 58, 136, 255, 270
MOST = 128
#: getsockopt() that is no look: an error is told once, a pidfd is made, memory is mapped.
NO_LOOK = {(SOCKET, 4), (SOCKET, 77), (TCP, 35)}
#: setsockopt() that is an act: a socket is corked, repaired, connected, or leaves its kind; a group is joined; what
#: is in a queue is forgotten. What an act has set is no option of the socket afterwards.
ACTS = {
    *(
        (SOCKET, number) for number in (25, 27, 53, 78, 79, 80)
    ),  # devices (62 has them), filters, device memory
    *((TCP, number) for number in (3, 19, 20, 21, 22, 29, 31, 38, 39, 40, 41, 42, 43)),
    *((UDP, 1), (UDPLITE, 1), (NETLINK, 1), (NETLINK, 2)),
    *((IP, number) for number in (16, 17, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 64)),
    *((IPV6, number) for number in (1, 20, 21, 27, 28, 32, 34, 35, 42, 43, 44, 45, 46, 47, 48)),
}
#: Numbers that an int is set to; a time, two pairs, a group of addresses, an interface, a filter of ICMPv6.
TRIED: list[int | bytes] = [
    *(100, 1, 0, 2, 3, 5, 17, 1500, 0x20001000, 2000000),
    struct.pack("@2l", 3, 0),
    struct.pack("=2i", 1, 7),
    struct.pack("=2i", 11, 1),
    struct.pack("=IiI", 0, 0, 1),
    struct.pack(">I", 1),
    b"\xff" * 20 + b"\0" * 12,
]
#: Where these would not do: the kernel takes any number of an interface; a small buffer has a small window anyway.
FIRST: dict[tuple[int, int], list[int | bytes]] = {(SOCKET, 62): [1], (SOCKET, 8): [100_000]}


def listening(family: int) -> list[socket.socket]:
    made = socket.socket(family, socket.SOCK_STREAM)
    made.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    made.listen(3)
    return [made]


def connected(family: int) -> list[socket.socket]:
    [server] = listening(family)
    with server:
        client = socket.create_connection(server.getsockname()[:2])
        return [server.accept()[0], client]


def bound(family: int, protocol: int) -> list[socket.socket]:
    made = socket.socket(family, socket.SOCK_DGRAM, protocol)
    made.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    return [made]


def plain(*words: int) -> list[socket.socket]:
    return [socket.socket(*words)]


#: Kind -> makes one, perhaps with others that keep it alive behind it; the levels of its options.
KINDS: dict[str, tuple[Callable[[], Iterable[socket.socket]], tuple[int, ...]]] = {
    "tcp listener": (lambda: listening(2), (SOCKET, IP, TCP)),
    "tcp6 listener": (lambda: listening(10), (SOCKET, IP, IPV6, TCP)),
    "tcp unconnected": (lambda: plain(2, 1), (SOCKET, IP, TCP)),
    "tcp6 unconnected": (lambda: plain(10, 1), (SOCKET, IP, IPV6, TCP)),
    "tcp connection": (lambda: connected(2), (SOCKET, IP, TCP)),
    "tcp6 connection": (lambda: connected(10), (SOCKET, IP, IPV6, TCP)),
    "udp": (lambda: bound(2, UDP), (SOCKET, IP, UDP)),
    "udp6": (lambda: bound(10, UDP), (SOCKET, IP, IPV6, UDP)),
    "udp of no port": (lambda: plain(2, 2), (SOCKET, IP, UDP)),
    "udplite": (lambda: bound(2, UDPLITE), (SOCKET, IP, UDPLITE)),
    "udplite6": (lambda: bound(10, UDPLITE), (SOCKET, IP, IPV6, UDPLITE)),
    "unix stream": (lambda: socket.socketpair(1, 1), (SOCKET,)),
    "unix dgram": (lambda: socket.socketpair(1, 2), (SOCKET,)),
    "unix seqpacket": (lambda: socket.socketpair(1, 5), (SOCKET,)),
    "raw": (lambda: plain(2, 3, 89), (SOCKET, IP, RAW)),
    "raw icmp": (lambda: plain(2, 3, ICMP), (SOCKET, IP, RAW)),
    "raw6": (lambda: plain(10, 3, 89), (SOCKET, IPV6)),
    "raw6 icmp": (lambda: plain(10, 3, ICMPV6), (SOCKET, IPV6, ICMPV6)),
    "ping": (lambda: plain(2, 2, ICMP), (SOCKET, IP)),
    "ping6": (lambda: plain(10, 2, ICMPV6), (SOCKET, IP, IPV6)),
    "netlink": (lambda: plain(16, 3, 0), (SOCKET, NETLINK)),
}


def ask(sock: socket.socket, level: int, number: int) -> str:
    """What the kernel says, at most 256 bytes in hexadecimal; an error as its number."""
    try:
        return sock.getsockopt(level, number, 256).hex()
    except OSError as error:
        return str(-(error.errno or 0))


def numbers(levels: Iterable[int]) -> Iterator[tuple[int, int]]:
    yield from (one for one in itertools.product(levels, range(MOST)) if one not in NO_LOOK)


def change(sock: socket.socket, level: int, number: int) -> str:
    """Set an option to the first value that makes it another one; what it was set to, "" for nothing.

    What no call reads is left alone: it may be another name of what was set before.
    """
    before = ask(sock, level, number)
    if before.startswith("-"):
        return ""
    for value in FIRST.get((level, number), TRIED):
        with contextlib.suppress(OSError):
            sock.setsockopt(level, number, value)
            if ask(sock, level, number) != before:
                return repr(value)
    return ""


def make(kind: str, order: int) -> tuple[list[socket.socket], dict[str, str]]:
    """A socket of *kind*, its options set in *order*: 1 or -1, 0 not at all."""
    maker, levels = KINDS[kind]
    made = list(maker())
    wanted = [one for one in numbers(levels) if one not in ACTS][:: order or 1] if order else []
    done = {f"{level}:{number}": change(made[0], level, number) for level, number in wanted}
    return made, {name: value for name, value in done.items() if value}


def everything(kinds: Iterable[str]) -> tuple[dict[str, list[socket.socket]], dict[str, dict[str, str]]]:
    made: dict[str, list[socket.socket]] = {}
    done: dict[str, dict[str, str]] = {}
    for kind, (word, order) in itertools.product(kinds, (("as made", 0), ("up", 1), ("down", -1))):
        with contextlib.suppress(OSError):  # this kernel has not got such sockets
            made[f"{kind}, {word}"], done[f"{kind}, {word}"] = make(kind, order)
    return made, done


def main() -> None:
    server = socket.create_server((sys.argv[1], int(sys.argv[2])))
    made, done = everything(sys.argv[3:] or KINDS)
    sock, _ = server.accept()
    while sock.recv(1):
        has = {
            name: {
                f"{level}:{n}": ask(sockets[0], level, n)
                for level, n in numbers(KINDS[name.split(", ")[0]][1])
            }
            for name, sockets in made.items()
        }
        sock.sendall(json.dumps({"has": has, "done": done}).encode() + b"\n")


if __name__ == "__main__":
    main()
