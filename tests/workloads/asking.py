"""What the measuring clients share: questions to the server, the harness's two words, the kernel's counters.

A client prints ``ready`` when it measures, goes on for SETTLE_S after a line on its standard input, and then
prints one line of JSON. All clocks are the peer's monotonic one.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

SETTLE_S = 1.2
DEADLINE_S = 60.0
#: Where struct tcp_info has tcpi_segs_in. Source: include/uapi/linux/tcp.h.
SEGS_IN = struct.Struct("=140xI")
COUNTERS = ("RetransSegs", "TCPTimeouts", "TCPLossProbes")


def connect(address: str, port: int, word: str, source: str = "") -> socket.socket:
    """A connection, from the address *source*, that the server uses as *word* says."""
    sock = socket.create_connection((address, port), DEADLINE_S, (source, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # No TIME_WAIT at the end, and no FIN to a server that is gone.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.sendall(word.encode() + b"\n")
    return sock


def ask(address: str, port: int, word: str) -> dict[str, Any]:
    """The server's answer to ``reset`` or ``report``, over a connection of its own."""
    with connect(address, port, word) as sock:
        answer: dict[str, Any] = json.loads(sock.makefile().readline())
        return answer


class Until:
    """When to stop: SETTLE_S after the word came."""

    def __init__(self) -> None:
        self.stop_at = float("inf")

    def ready(self) -> None:
        """Tell the harness that measuring has begun, and listen to it."""
        print("ready", flush=True)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        sys.stdin.readline()
        self.stop_at = time.monotonic() + SETTLE_S

    def over(self, now: float) -> bool:
        """Whether *now* is the end."""
        return now > self.stop_at


class Silence:
    """Measures times in which nothing came."""

    #: Shorter ones are not told one by one.
    NOTABLE_S = 0.010

    def __init__(self) -> None:
        self.longest_s = self.began = self.ended = 0.0
        self.notable: list[float] = []

    def was(self, began: float, ended: float) -> None:
        """Nothing came between the two."""
        lasted = ended - began
        if lasted > self.longest_s:
            self.longest_s, self.began, self.ended = lasted, began, ended
        if lasted > self.NOTABLE_S:
            self.notable.append(round(1000 * lasted, 2))

    def said(self) -> dict[str, Any]:
        """For the last line."""
        return {
            "gap_ms": 1000 * self.longest_s,
            "began_s": self.began,
            "ended_s": self.ended,
            "silences_ms": self.notable,
            "disturbed_ms": sum(self.notable),
        }


def segments_in(sock: socket.socket) -> int:
    """How many segments the connection has received, acknowledgements and probes included."""
    number: int = SEGS_IN.unpack_from(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256))[0]
    return number


def counters() -> dict[str, int]:
    """COUNTERS of this host: what nstat calls TcpRetransSegs, TcpExtTCPTimeouts, TcpExtTCPLossProbes."""
    found: dict[str, int] = {}
    for name in ("snmp", "netstat"):
        lines = Path("/proc/self/net", name).read_text().splitlines()
        for keys, values in zip(lines[::2], lines[1::2], strict=True):
            found.update(zip(keys.split()[1:], map(int, values.split()[1:]), strict=True))
    return {name: found[name] for name in COUNTERS}


def tell(address: str, port: int, result: dict[str, Any], *, report: bool = True) -> None:
    """Print the last line, with what the server, wherever it is now, has to say."""
    if report:
        try:
            result["server"] = ask(address, port, "report")
        except OSError as error:
            result["error"] = result.get("error") or f"the server does not answer any more: {error}"
    print(json.dumps(result), flush=True)
