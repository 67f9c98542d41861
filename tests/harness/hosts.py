"""What tests do on the hosts of a lab: start programs, connect as the test itself, look at sockets."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from harness.wait import DEADLINE_S
from migrate.lab import Host, Lab, enter

MOVERS = ("origin", "destination")
#: PIDs of programs, far enough from each other that none is in use on another host.
_PIDS = itertools.count(20_000, 200)

#: A program begins so, with a child in a group whose leader has ended: CRIU forks a helper for that number.
GROUP_WITHOUT_LEADER = """
import os, time
told, tell = os.pipe()
leader = os.fork()
if leader == 0:
    os.close(tell); os.read(told, 1); os._exit(0)
os.setpgid(leader, leader)
child = os.fork()
if child == 0:
    time.sleep(10000)
os.setpgid(child, leader)
os.write(tell, b"x"); os.waitpid(leader, 0)
"""

T = TypeVar("T")


def spawn(host: Host, command: list[str], *, first_pid: int | None = None, log: str | None = None) -> int:
    """Start *command* on *host* with a PID that no other host of the lab has in use.

    :param first_pid: its PID if that is free.
    """
    use_pid(host, first_pid or next(_PIDS))
    return host.spawn(command, log=log)


def use_pid(host: Host, pid: int) -> None:
    """Have the next program that is started on *host* get *pid* or one behind it: a shell comes before it."""
    host.exec(["sh", "-c", f"echo {pid - 2} > /proc/sys/kernel/ns_last_pid"])


def in_network(host: Host, call: Callable[[], T]) -> T:
    """Call in a thread that is in the network of *host*: sockets and programs belong where they are made."""

    def run() -> T:
        descriptor = os.open(host.netns, os.O_RDONLY)
        try:
            enter.setns(descriptor, enter.CLONE_NEWNET)
        finally:
            os.close(descriptor)
        return call()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def connect(
    host: Host,
    address: str,
    port: int,
    *,
    receive_buffer: int = 0,
    source: str = "",
    protocol: int = 0,
    prepare: Callable[[socket.socket], None] = lambda _: None,
) -> socket.socket:
    """A connection whose near end is on *host* and belongs to this process.

    :param receive_buffer: bytes. :param source: an address. :param protocol: IPPROTO_MPTCP, say.
    :param prepare: gets the socket before it connects.
    """

    def connected() -> socket.socket:
        made = socket.socket(
            socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, protocol
        )
        made.settimeout(DEADLINE_S)
        if receive_buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            made.bind((source, 0))
        prepare(made)
        made.connect((address, port))
        return made

    return in_network(host, connected)


@contextlib.contextmanager
def patient(lab: Lab, address: str, seconds: int) -> Iterator[None]:
    """What the peer sends to *address* it sends again after so many seconds, not after a fifth of one.

    Then a gap may last as long as it does on a busy machine, and who waits for a timer is told from who does not.
    """
    host = lab.hosts["peer"]
    found = json.loads(host.exec(["ip", "-json", "route", "get", address]).stdout)[0]
    route = ["ip", "route", "add", address, "via", found["gateway"], "dev", found["dev"]]
    host.exec([*route, "rto_min", f"{seconds}s"])
    try:
        yield
    finally:
        host.exec(["ip", "route", "del", address])


def listeners(host: Host, *ports: int) -> int:
    """How many sockets of *host* listen on one of *ports*."""
    chosen = " or ".join(f"sport = :{port}" for port in ports)
    return host.exec(["ss", "-Hltn", chosen]).stdout.count("\n")


def ss(host: Host, *words: str) -> list[dict[str, str]]:
    """TCP sockets of *host* as ``ss`` tells them: state, queues, ends, and its details by name."""
    lines = host.exec(["ss", "-tinoeHOa", *words]).stdout.splitlines()
    return [_ss_line(line) for line in lines]


def _ss_line(line: str) -> dict[str, str]:
    state, received, sent, local, peer, *rest = line.split()
    details = {"state": state, "recv_q": received, "send_q": sent, "local": local, "peer": peer}
    words = " ".join(rest)
    algorithm = re.search(r"(?<= )(cubic|reno|bbr)(?= )", words)
    details["congestion"] = algorithm[0] if algorithm else ""
    return details | dict(re.findall(r"([a-z_]+):(\S+)", words)) | {"all": words}
