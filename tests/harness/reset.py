"""The lab as it came up, before and after a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import left
from harness.hosts import MOVERS
from harness.wait import eventually
from migrate.lab import Host, Lab


@pytest.fixture
def clean(lab: Lab) -> Iterator[None]:
    """The lab as it came up, before and after; what is left behind, or done beside the table, is an error."""
    reset(lab)
    told = left.unexpected(lab)  # of tests before, some of which lie
    yield
    left.assert_nothing_left(lab)
    assert left.unexpected(lab) - told == set()
    reset(lab)


def reset(lab: Lab) -> None:
    """Make the lab as it was when it came up: nothing runs, and the service is on origin."""
    for name in ("peer", *MOVERS):
        _kill_all(lab.hosts[name])
    give_back(lab)
    left.assert_service_on(lab, "origin")


def give_back(lab: Lab) -> None:
    """The service addresses are on origin again, wherever they were, and everybody knows."""
    origin, destination = (lab.hosts[name] for name in MOVERS)
    there, here = left.addresses(destination), left.addresses(origin)
    for address in lab.service:
        # The kernel prefers the latest IPv6 address as a source, and that is not to be the service's.
        length, options = ("64", ["nodad", "preferred_lft", "0"]) if ":" in address else ("24", [])
        if address in there:
            destination.exec(["ip", "address", "del", f"{address}/{length}", "dev", "eth0"])
        if address not in here:
            origin.exec(["ip", "address", "add", f"{address}/{length}", "dev", "eth0", *options])
    # Also where the origin has had them back: what a neighbour knows may be of before, and is kept for 10 s.
    for name in ("destination", "gateway", "peer"):
        lab.hosts[name].exec(["ip", "neigh", "flush", "all"])


def _kill_all(host: Host) -> None:
    def kill() -> bool:
        found = left.processes(host)
        if found:
            host.exec(["kill", "-9", *map(str, found)], check=False)
        return not found

    eventually(kill, f"{host.name} is empty")
