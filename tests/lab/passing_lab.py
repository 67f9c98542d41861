"""What the tests of the library between two lab hosts share: passers, the peer's side, the paper's switch."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from harness.hosts import MOVERS
from harness.wait import DEADLINE_S
from harness.workloads import PASSER as BEFORE
from harness.workloads import WORKLOADS

from migrate.lab import Host, Lab

sys.path.insert(0, str(WORKLOADS))
from passer import content as content  # noqa: E402

PASSER = str(WORKLOADS / "passer.py")
PASS_PORT = 7100


class Passer:
    """tests/workloads/passer.py on one host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._process = host.popen(
            [*BEFORE, sys.executable, PASSER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, do: str, **words: Any) -> None:
        """Have it do something; :meth:`answer` follows."""
        self._process.stdin.write(json.dumps({"do": do, **words}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """What it says."""
        line = self._process.stdout.readline()
        assert line, f"the passer on {self.host.name} has ended"
        result = json.loads(line)
        assert not (isinstance(result, dict) and "error" in result), result
        return result

    def ask(self, do: str, **words: Any) -> Any:
        """Have it do something and say what came of it."""
        self.tell(do, **words)
        return self.answer()

    def close(self) -> None:
        """End it."""
        self._process.stdin.close()
        self._process.wait(DEADLINE_S)
        self._process.stdout.close()


@contextlib.contextmanager
def passers(lab: Lab) -> Iterator[tuple[Passer, Passer]]:
    """One on the origin, one on the destination."""
    both = Passer(lab.hosts["origin"]), Passer(lab.hosts["destination"])
    try:
        yield both
    finally:
        for one in both:
            one.close()


def hand_over(origin: Passer, destination: Passer, **how: Any) -> tuple[dict[str, Any], list[int]]:
    """Get at *origin*, create at *destination*; what the origin says, and the ports at the destination."""
    destination.tell("take", port=PASS_PORT, **how)
    assert destination.answer() == "ready"
    handed = origin.ask("hand", address=destination.host.ipv4, port=PASS_PORT)
    return handed, destination.answer()


def remove_filters(lab: Lab) -> None:
    """Remove what :func:`tcpcp.release` leaves for a minute."""
    for name in MOVERS:
        words = lab.hosts[name].exec(["nft", "list", "tables"]).stdout.split()
        for table in (word for word in words if word.startswith("tcpcp")):
            lab.hosts[name].exec(["nft", "delete", "table", "inet", table])


@contextlib.contextmanager
def service_on_both(lab: Lab) -> Iterator[None]:
    """Paper 2.2, figure 3: both hosts have the service addresses, and the gateway has a route to one."""
    destination, gateway = lab.hosts["destination"], lab.hosts["gateway"]
    addresses = ((lab.service.ipv4, "32"), (lab.service.ipv6, "128"))
    for address, bits in addresses:
        nodad = ["nodad"] if ":" in address else []
        destination.exec(["ip", "address", "add", f"{address}/{bits}", "dev", "lo", *nodad])
    switch(lab, "origin")
    try:
        yield
    finally:
        for address, bits in addresses:
            destination.exec(["ip", "address", "del", f"{address}/{bits}", "dev", "lo"])
            gateway.exec(["ip", "route", "del", f"{address}/{bits}"])


def switch(lab: Lab, to: str) -> None:
    """``route add ipX gw ipB``"""
    host, gateway = lab.hosts[to], lab.hosts["gateway"]
    for address, bits, via in (
        (lab.service.ipv4, "32", host.ipv4),
        (lab.service.ipv6, "128", host.ipv6),
    ):
        gateway.exec(["ip", "route", "replace", f"{address}/{bits}", "via", via])


@contextlib.contextmanager
def deaf(host: Host, ports: list[int]) -> Iterator[None]:
    """What arrives at *host* for its *ports* is lost."""
    chosen = ", ".join(map(str, ports))
    chain = "type filter hook input priority -400; meta l4proto tcp"
    host.exec(["nft", f"table inet deaf {{ chain c {{ {chain} tcp dport {{ {chosen} }} drop; }}; }}"])
    yield
    host.exec(["nft", "delete table inet deaf"])
