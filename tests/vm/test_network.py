"""A network that loses, delays and reorders, which kernels of their own can make of any link (netem).

Both ways between the peer and the server, and both ways between the two movers: what the peers send in the gap and
the ssh session that carries the images go over the same bad links.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from conftest import PATIENT
from harness.hosts import MOVERS
from harness.migrate import move
from harness.workloads import assert_streams, drive_numbered, serve_numbered

from migrate.lab.vm.lab import VmLab

pytestmark = pytest.mark.usefixtures("clean")

PORT = 7000
#: Host, interface, and what becomes of what leaves there.
LINKS = [
    ("gateway", "eth0", ["delay", "20ms", "10ms", "loss", "2%", "reorder", "20%"]),
    ("gateway", "eth1", ["delay", "20ms", "10ms", "loss", "2%", "reorder", "20%"]),
    *((name, "eth0", ["delay", "5ms", "3ms", "loss", "1%", "reorder", "20%"]) for name in MOVERS),
]


@contextlib.contextmanager
def bad_links(lab: VmLab) -> Iterator[None]:
    """All of :data:`LINKS` are bad."""
    try:
        for name, device, bad in LINKS:
            lab.hosts[name].exec(["tc", "qdisc", "replace", "dev", device, "root", "netem", *bad])
        yield
    finally:
        for name, device, _ in LINKS:
            lab.hosts[name].exec(["tc", "qdisc", "del", "dev", device, "root"], check=False)


def test_streams_over_links_that_lose_delay_and_reorder(lab: VmLab) -> None:
    """Every number comes once and in order, and every link has lost some."""
    pid = serve_numbered(lab.hosts["origin"], PORT)
    with bad_links(lab):
        client = drive_numbered(lab, PORT, 2)
        before = client.ask()
        move(lab, pid, *PATIENT)
        assert_streams(client, before)
        assert client.stop()["errors"] == []
        for name, device, _ in LINKS:
            told = lab.hosts[name].exec(["tc", "-s", "qdisc", "show", "dev", device]).stdout
            assert "netem" in told and "dropped 0," not in told, (name, told)
