"""What somebody on the destination takes after the check stays theirs, and the process goes on where it was."""

from __future__ import annotations

import sys

import pytest
from bad_input_bench import Bench, Server, stopped_at
from harness.wait import eventually

#: Binds a UDP socket, which lets others have the port if a second word says so.
DATAGRAMS = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if sys.argv[1:]: s.setsockopt(socket.SOL_SOCKET, getattr(socket, sys.argv[1]), 1)
s.bind(("0.0.0.0", 5353))
while True: time.sleep(1000)
"""


@pytest.mark.parametrize("option", ["SO_REUSEADDR", "SO_REUSEPORT"])
def test_a_udp_port(bench: Bench, option: str) -> None:
    """CRIU binds with both options, so the other one alone has to permit it."""
    with bench.server() as server, bench.program(bench.origin, sys.executable, "-c", DATAGRAMS) as pid:
        program = Server(pid, "", 0, server.connection, "")
        with (
            stopped_at(bench, "CHECKED", program) as run,
            bench.program(bench.destination, sys.executable, "-c", DATAGRAMS, option) as other,
        ):
            eventually(lambda: "5353" in bench.destination.exec(["ss", "-ulnH"]).stdout, "UDP")
            run.go()
            found = run.end()
        assert (found.status, found.report["outcome"]) == (4, "ROLLED_BACK"), found
        found.must_say("destination", "UDP port 5353", f"(PID {other})", "since the check", "ss -uanp")
