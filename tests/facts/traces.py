"""What the library could leave behind, found out without it: nftables' rules, and all that a socket tells."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import time
from typing import NamedTuple

from harness.wait import TooLate
from netns import Hosts, Namespace, eventually

from tcpcp.kernel import tcp_repair

#: Options not to be asked for: they change with time or by being asked, or need a buffer of their own kind.
_NOT_ASKED = {
    (socket.SOL_SOCKET, 4),  # SO_ERROR
    (socket.SOL_SOCKET, 26),  # SO_GET_FILTER
    (socket.SOL_SOCKET, 49),  # SO_INCOMING_CPU
    (socket.SOL_SOCKET, 55),  # SO_MEMINFO
    (socket.SOL_SOCKET, 56),  # SO_INCOMING_NAPI_ID
    (socket.SOL_SOCKET, 77),  # SO_PEERPIDFD
    (socket.IPPROTO_IP, 9),  # IP_PKTOPTIONS
    (socket.IPPROTO_IPV6, 6),  # IPV6_2292PKTOPTIONS
    (socket.IPPROTO_IPV6, 32),  # IPV6_FLOWLABEL_MGR
    (socket.IPPROTO_TCP, 11),  # TCP_INFO
    (socket.IPPROTO_TCP, 12),  # TCP_QUICKACK
    (socket.IPPROTO_TCP, 20),  # TCP_REPAIR_QUEUE, which the kernel looks at in repair mode only, and
    (socket.IPPROTO_TCP, 21),  # TCP_QUEUE_SEQ, which depends on it
    (socket.IPPROTO_TCP, 24),  # TCP_TIMESTAMP
    (socket.IPPROTO_TCP, 26),  # TCP_CC_INFO
    (socket.IPPROTO_TCP, 35),  # TCP_ZEROCOPY_RECEIVE
}
_LEVELS = {socket.SOL_SOCKET: 84, socket.IPPROTO_IP: 52, socket.IPPROTO_IPV6: 80, socket.IPPROTO_TCP: 46}


class Rules(NamedTuple):
    """How much of the library's is in the packet filter of one network namespace."""

    tables: int
    chains: int
    rules: int
    elements: int
    #: Without those by which a connection that came back is known to others: they let through.
    holding: int


NOTHING = Rules(0, 0, 0, 0, 0)


def _ruleset(namespace: Namespace) -> str:
    """As text: nft 1.0.6 writes broken JSON where a table has a flag that it does not know."""
    with namespace.entered():
        done = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True)
    return done.stdout


def rules(namespace: Namespace) -> Rules:
    """Count tables whose names begin with tcpcp, and what is in them; all their elements have timeouts."""
    counts = {"table": 0, "chain": 0, "rule": 0, "element": 0, "holding": 0}
    inside = back = False
    for line in _ruleset(namespace).splitlines():
        kind, _, rest = line.strip().partition(" ")
        if kind == "table":
            inside = rest.startswith("inet tcpcp")
        if not inside:
            continue
        if kind == "set":
            back = rest.startswith("back")
        elements = line.count(" expires ")
        counts["element"] += elements
        counts["holding"] += 0 if back else elements
        counts["rule"] += line.rstrip().endswith((" drop", " accept")) and kind != "type"
        if kind in counts:
            counts[kind] += 1
    return Rules(*counts.values())


def is_held(peer: socket.socket, for_s: float = 0.06) -> bool:
    """Whether what *peer* sends now is acknowledged by nobody."""
    peer.send(b"x")
    time.sleep(for_s)
    return tcp_repair.get_outq(peer) > 0


def goes_through(peer: socket.socket, within_s: float = 10) -> bool:
    """Whether what *peer* sends now is acknowledged, maybe by a late timer, before a hold of a minute runs out."""
    peer.send(b"x")
    try:
        return eventually(lambda: not tcp_repair.get_outq(peer), "acknowledged", within_s)
    except TooLate:
        return False


def sent_by(hosts: Hosts, namespace: Namespace) -> int:
    """Segments that one side has sent so far, resets too."""
    counters = hosts.counters(namespace)
    return counters["TcpOutSegs"] + counters["TcpOutRsts"]


def everything(sock: socket.socket) -> dict[object, object]:
    """All options, the state, the flags of the file: to be compared with what is found later."""
    found: dict[object, object] = {
        "flags": fcntl.fcntl(sock.fileno(), fcntl.F_GETFL),
        "timeout": sock.gettimeout(),
        "inode": os.fstat(sock.fileno()).st_ino,
    }
    for level, last in _LEVELS.items():
        for number in range(1, last + 1):
            if (level, number) not in _NOT_ASKED:
                found[level, number] = _asked(sock, level, number)
    if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
        found["state"] = tcp_repair.get_state(sock)
    return found


def changed(sock: socket.socket, before: dict[object, object]) -> dict[object, tuple[object, object]]:
    """What of :func:`everything` is another now: what it was and what it is."""
    now = everything(sock)
    return {key: (value, now.get(key)) for key, value in before.items() if now.get(key) != value}


def _asked(sock: socket.socket, level: int, number: int) -> bytes | str:
    try:
        return sock.getsockopt(level, number, 64)
    except OSError as exc:
        return str(exc)
