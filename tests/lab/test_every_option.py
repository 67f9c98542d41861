"""Every option of every kind of socket is after a move as it was, or a note names it, or it is in a list here.

The program asks and sets each number of each level itself; nothing is known of what the kernel has but what is left
out, with the reason.
"""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from harness.hosts import MOVERS, connect, spawn, ss
from harness.migrate import move
from harness.wait import eventually
from harness.workloads import WORKLOADS

from migrate.lab import Lab
from tcpcp.record.option_names import IPPROTO_IP, IPPROTO_IPV6, OPTIONS

pytestmark = pytest.mark.usefixtures("clean")

PORT = 7230
#: What is of the host, or of the moment, by level and number.
NOT_OF_THE_PROGRAM = {
    "1:49": "SO_INCOMING_CPU: a processor of this host",
    "1:55": "SO_MEMINFO: what the queues take",
    "1:56": "SO_INCOMING_NAPI_ID: a queue of a device of this host",
    "1:57": "SO_COOKIE: a number of this kernel",
    "1:71": "SO_NETNS_COOKIE: a number of this kernel",
    "0:9": "IP_PKTOPTIONS: what a packet had",
    "0:14": "IP_MTU: what a path can carry",
    "6:11": "TCP_INFO: counts",
    "6:24": "TCP_TIMESTAMP: a clock of this host",
    "6:26": "TCP_CC_INFO: counts",
    "41:6": "IPV6_2292PKTOPTIONS: what a packet had",
    "41:24": "IPV6_MTU: what a path can carry",
    "41:32": "IPV6_FLOWLABEL_MGR: labels that no call sets for another one",
    "41:61": "IPV6_PATHMTU: what a path can carry",
}
#: SO_PEERCRED begins with a PID, which is kept, unless that is taken there.
NAMES = {"0:50": "IP_UNICAST_IF", "41:76": "IPV6_UNICAST_IF"}
#: Of connections, what an ICI leaves out means nothing to them: `options_left_out` says why. These it has not.
OF_CONNECTIONS = {"1:37", "1:65"} | {
    f"{one.level}:{one.number}" for one in OPTIONS.values() if not one.listening_only
}
Asked = dict[str, Any]


def ask(sock: socket.socket) -> Asked:
    sock.sendall(b"?")
    with sock.makefile("rb") as answer:
        return dict(json.loads(answer.readline()))


def is_compared(kind: str, option: str) -> bool:
    if "connection" not in kind:
        return option not in NOT_OF_THE_PROGRAM
    sent_by = IPPROTO_IP if kind.startswith("tcp6") else IPPROTO_IPV6
    return option in OF_CONNECTIONS and not option.startswith(f"{sent_by}:")


def different(before: Asked, after: Asked) -> Iterator[tuple[str, str, str, str]]:
    """Kind, option, and what it was and is."""
    for kind, options in before["has"].items():
        for option, was in options.items():
            now = after["has"][kind][option]
            if was != now and is_compared(kind, option):
                yield kind, option, was, now


@pytest.fixture
def with_ping(lab: Lab) -> Iterator[None]:
    """Everybody may have sockets for ping, as on most distributions."""
    file = "/proc/sys/net/ipv4/ping_group_range"
    before = {name: lab.hosts[name].exec(["cat", file]).stdout.strip() for name in MOVERS}
    for name in MOVERS:
        lab.hosts[name].exec(["sh", "-c", f"echo 0 100 > {file}"])
    yield
    for name in MOVERS:
        lab.hosts[name].exec(["sh", "-c", f"echo '{before[name]}' > {file}"])


def test_all_are_as_before_or_noted(lab: Lab, with_ping: None) -> None:
    origin = lab.hosts["origin"]
    program = str(WORKLOADS / "every_option.py")
    pid = spawn(origin, [sys.executable, program, lab.service.ipv4, str(PORT)])
    eventually(lambda: ss(origin, "-l", f"sport = {PORT}"), "the program listens")
    with connect(lab.hosts["peer"], lab.service.ipv4, PORT) as sock:
        before = ask(sock)
        changed = {kind: len(done) for kind, done in before["done"].items() if not kind.endswith("as made")}
        assert len(changed) > 35 and min(changed.values()) > 25, changed
        notes = " ".join(move(lab, pid).report["notes"])
        lost = [one for one in different(before, ask(sock)) if NAMES.get(one[1], one[1]) not in notes]
    assert lost == []
    assert set(re.findall(r"socket option (\w+) is not", notes)) <= set(NAMES.values())
