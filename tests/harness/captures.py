"""Captures of a host of a lab: tcpdump runs there, and what it has seen is handed out."""

from __future__ import annotations

import subprocess
from types import TracebackType
from typing import Self

from harness import pcap, tcp_rules
from harness.pcap import Packet
from harness.tcp_rules import Connection
from harness.wait import DEADLINE_S
from migrate.lab import Host


class Capture:
    """tcpdump on one interface of *host*, running inside the ``with`` block.

    Entering returns when it captures; leaving ends it, and fails if the kernel dropped a packet.
    """

    def __init__(self, host: Host, interface: str, words: str = "tcp", name: str = "capture") -> None:
        self._host, self._interface, self._words = host, interface, words
        self._inside = f"/tmp/{name}-{interface}.pcap"

    def __enter__(self) -> Self:
        # The ring has a slot of the largest packet for each one that waits: 256 kB for tcpdump's own limit, which
        # would leave few of them, and 64 kB for what the kernel makes (GSO). The ring is in KiB.
        sizes = ["-B", str(256 << 10), "-s", "66000"]
        command = ["tcpdump", "-Z", "root", "-n", "-U", "--immediate-mode", *sizes]
        self._process = self._host.popen(
            [*command, "-i", self._interface, "-w", self._inside, self._words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = []
        assert self._process.stderr is not None
        for line in self._process.stderr:
            said.append(line)
            if "listening on" in line:
                return self
        raise AssertionError("tcpdump: " + "".join(said))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        _, said = self._process.communicate(timeout=DEADLINE_S)
        if kind is None:
            assert "\n0 packets dropped by kernel" in "\n" + said, said

    def packets(self) -> list[Packet]:
        """All TCP segments, in the order in which they were seen."""
        return list(pcap.read(self._host.root / self._inside[1:]))

    def connections(self, *, lossless: bool = True) -> list[Connection]:
        """Each connection, judged. Whole ones: a lab's hosts use timestamps from the SYN on.

        :param lossless: whether what is not seen in its order, but for a little overtaking, is a fault.
        """
        return tcp_rules.connections(
            self.packets(), overtaking_s=tcp_rules.OVERTAKING_S, lossless=lossless, stamped=True
        )
