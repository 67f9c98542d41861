"""A machine that boots takes the service's addresses only if nobody has them: two network namespaces on a cable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.wait import eventually

from migrate.lab import topology
from migrate.lab.vm import root

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs namespaces")
#: What the guest of origin does with its network, without the commands' interface.
BOOT = f"""
import subprocess, sys
sys.path[:0] = [{str(root.PROJECT)!r}]
from migrate.lab import topology
from migrate.lab.init import set_sysctls
from migrate.lab.vm import claim, families, network, seed
set_sysctls(seed.sysctls("origin"))
for option, lines in families.split(network.commands("origin")).items():
    subprocess.run(["ip", option, "-batch", "-"], input="\\n".join(lines) + "\\n", text=True, check=True)
claim.take(network.service_device("origin"))
set_sysctls(topology.settled_sysctls("origin"))
"""


class Space:
    """A network namespace."""

    def __init__(self) -> None:
        self.keeper = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        self.path = Path(f"/proc/{self.keeper.pid}/ns/net")
        own = Path("/proc/self/ns/net")
        eventually(lambda: self.path.readlink() != own.readlink(), "it is there")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        words = ["nsenter", f"--net={self.path}", *command]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)

    def end(self) -> None:
        self.keeper.kill()
        self.keeper.wait()


@pytest.fixture
def spaces() -> Iterator[tuple[Space, Space]]:
    """Origin's and another's; on both sides the cable is called eth0."""
    origin, other = Space(), Space()
    words = "link add eth0 type veth peer name eth0 netns"
    origin.run("ip", *words.split(), str(other.keeper.pid))
    other.run("ip", "link", "set", "eth0", "up")
    yield origin, other
    origin.end()
    other.end()


@pytest.mark.parametrize("held", [(), (topology.SERVICE.ipv4,), (topology.SERVICE.ipv6,), topology.SERVICE])
def test_what_another_machine_has_is_not_taken(spaces: tuple[Space, Space], held: tuple[str, ...]) -> None:
    """Each by itself, since each can be moved without the other; what it is then is told."""
    origin, other = spaces
    for address in held:
        words = ["nodad"] if ":" in address else []
        bits = topology.IPV6_PREFIX_BITS if ":" in address else topology.IPV4_PREFIX_BITS
        other.run("ip", "address", "add", f"{address}/{bits}", "dev", "eth0", *words)
    said = origin.run(sys.executable, "-I", "-S", "-c", BOOT).stderr
    assert said == "".join(f"LAB: {one} is not taken, another machine has it\n" for one in held)
    shown = origin.run("ip", "-o", "address", "show", "dev", "eth0", "scope", "global").stdout
    assert "tentative" not in shown
    assert all("nodad" in line for line in shown.splitlines() if "inet6" in line)
    found = {line.split()[3].partition("/")[0] for line in shown.splitlines()}
    assert found == set(topology.SERVICE_LEG.address) | (set(topology.SERVICE) - set(held))


def test_it_is_taken_as_an_address_of_no_new_connection(spaces: tuple[Space, Space]) -> None:
    """The host's own go before it; and what is added later is asked for as often as on any machine."""
    origin, _ = spaces
    origin.run(sys.executable, "-I", "-S", "-c", BOOT)
    for gateway, own in zip(topology.NETWORKS["servers"].gateway, topology.SERVICE_LEG.address, strict=True):
        assert f" src {own} " in origin.run("ip", "-o", "route", "get", gateway).stdout
    assert origin.run("cat", "/proc/sys/net/ipv6/conf/eth0/dad_transmits").stdout == "1\n"
