"""Makes a machine of Vagrant's a host of the lab besides: ``python -m migrate.lab.vm.routed HOST DEVICE...``.

Its first interface is Vagrant's own. The devices are those of the host's legs, in their
order; each gets the addresses and routes of its leg, and the names of all hosts go into /etc/hosts.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from migrate.lab import topology
from migrate.lab.init import set_sysctls
from migrate.lab.vm import claim, families, network, seed

DEADLINE_S = 60.0
HOSTS_FILE = Path("/etc/hosts")


def renamed(text: str, host: str, devices: Sequence[str]) -> str:
    """Return *text* with the names of this machine's devices in place of the lab's."""
    names = {leg.interface: device for leg, device in zip(topology.legs_of(host), devices, strict=True)}
    # All at once: one's new name may be another's old one.
    return re.sub("|".join(rf"\b{name}\b" for name in names), lambda found: names[found[0]], text)


def lines(host: str, devices: Sequence[str]) -> list[str]:
    """Return what ``ip -batch`` does here."""
    return [renamed(line, host, devices) for line in network.commands(host, own_default=False)]


def settings(host: str, devices: Sequence[str], wanted: dict[str, str]) -> dict[str, str]:
    """Return those of the settings *wanted* that are about the lab's devices, or forwarding, and no others."""
    found = {renamed(key, host, devices): value for key, value in wanted.items()}
    own = tuple(f"/{device}/" for device in devices)
    return {
        key: value for key, value in found.items() if any(name in key for name in own) or "forward" in key
    }


def main() -> int:
    """The command; it may be run again."""
    host, *devices = sys.argv[1:]
    HOSTS_FILE.write_text(topology.hosts_file(host))
    set_sysctls(settings(host, devices, seed.sysctls(host)))
    for option, found in families.split(lines(host, devices)).items():
        text = (
            "\n".join(found).replace("route add", "route replace").replace("addr add", "addr replace") + "\n"
        )
        # A rule that is there already is the one thing that may fail.
        words = ["ip", "-force", option, "-batch", "-"]
        subprocess.run(words, input=text, text=True, check=False, timeout=DEADLINE_S)
    if device := network.service_device(host):
        claim.take(renamed(device, host, devices))
    return 0


if __name__ == "__main__":
    sys.exit(main())
