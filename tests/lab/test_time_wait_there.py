"""A connection that has ended on the destination a moment ago is no reason to stay away: its client began anew."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

import pytest
from bad_input_bench import InputBench
from harness.hosts import in_network, listeners
from harness.migrate import run_migrate
from harness.wait import eventually

from migrate.lab import Lab

#: Answers each word of a client, one at a time, and closes first when it is told to.
ANSWERS = """
import socket, sys
listening = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True:
    sock = listening.accept()[0]
    while (word := sock.recv(100)) not in (b"", b"end"): sock.sendall(word)
    sock.close()
"""
TIMESTAMPS = "echo {} >/proc/sys/net/ipv4/tcp_timestamps"


@pytest.fixture(scope="module")
def bench() -> Iterator[InputBench]:
    """A lab of its own: what has ended on these hosts, and how, is what it is about."""
    with Lab(f"ended-{os.getpid()}") as lab:
        yield InputBench(lab)


@pytest.mark.parametrize("timestamps", [1, 0])
def test_there_and_back_with_the_same_ports(bench: InputBench, timestamps: int) -> None:
    hosts, port = (bench.origin, bench.destination), bench.free_port()
    for host in hosts:
        host.exec(["sh", "-c", TIMESTAMPS.format(timestamps)])
    try:
        with bench.program(bench.origin, sys.executable, "-c", ANSWERS, bench.service, str(port)) as pid:
            eventually(lambda: listeners(bench.origin, port), "it listens")
            first = bench.connect(bench.service, port)
            ends = first.getsockname()
            first.sendall(b"end")
            assert first.recv(10) == b""
            first.close()
            eventually(lambda: "TIME-WAIT" in bench.origin.exec(["ss", "-Htan"]).stdout, "it has ended")
            there = bench.migrate(pid, "destination")
            assert there.report["outcome"] == "MOVED", there
            again = in_network(bench.peer, lambda: _from(ends))
            again.connect((bench.service, port))
            assert _answered(again)
            number = there.report["destination_pid"]
            back = run_migrate(bench.destination, number, "origin")
            try:
                assert back.report["outcome"] == "MOVED", back.said
                assert _answered(again)
            finally:
                bench.destination.exec(["kill", "-9", str(number)], check=False)
                bench.destination.exec(
                    ["ip", "addr", "del", f"{bench.service}/24", "dev", "eth0"], check=False
                )
                bench.origin.exec(["ip", "addr", "replace", f"{bench.service}/24", "dev", "eth0"])
                again.close()
    finally:
        for host in hosts:
            host.exec(["sh", "-c", TIMESTAMPS.format(1)])


def _from(ends: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(10)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(ends)
    return sock


def _answered(sock: socket.socket) -> bool:
    sock.sendall(b"word")
    return sock.recv(10) == b"word"
