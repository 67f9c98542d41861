"""Takes the service's addresses in a machine that boots, unless another machine has them: they were moved there.

For IPv4 that is asked here, as RFC 5227 has it: nobody answers for an address that is free. For IPv6 the kernel
does it (RFC 4862), from the moment that the address is added without ``nodad``. Runs in machines, and needs Python
alone.
"""

import socket
import struct
import subprocess
import sys
import time

from migrate.lab import topology
from migrate.lab.init import set_sysctls

#: How often it is asked, and how long an answer is waited for. Source: RFC 5227, 1.1; RFC 4862, 5.1 (RetransTimer).
PROBES = 3
PROBE_S = 1.0
#: The kernel begins up to a second late, and not before there is a carrier.
DEADLINE_S = 15.0
POLL_S = 0.1
ETH_P_ARP = 0x0806
#: Ethernet and IPv4, by the sizes of their addresses. Source: RFC 826.
_ARP = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
_SENDER = slice(22, 28)
_SENDERS_ADDRESS = slice(28, 32)


def settings(device: str) -> dict[str, str]:
    """Return what is written below /proc/sys before *device* gets the address: the kernel asks as often as we."""
    own = f"net/ipv6/conf/{device}"
    return {f"{own}/accept_dad": "1", f"{own}/dad_transmits": str(PROBES)}


def take(device: str) -> None:
    """Have the addresses that are free on *device*, which is up and has been given that of IPv6 already.

    Which of them another machine has is said on standard error.
    """
    address, bits = topology.SERVICE, topology.IPV4_PREFIX_BITS
    if is_held(device, address.ipv4):
        _tell(address.ipv4)
    else:
        _ip("addr", "replace", f"{address.ipv4}/{bits}", "dev", device)
    there = f"{address.ipv6}/{topology.IPV6_PREFIX_BITS}"
    if is_duplicate(device, address.ipv6):
        _tell(address.ipv6)
        _ip("addr", "del", there, "dev", device)
    else:  # As the lab of namespaces has it.
        _ip("addr", "replace", there, "dev", device, "nodad")
    # As often as any machine asks, for what is added later.
    set_sysctls({f"net/ipv6/conf/{device}/dad_transmits": "1"})


def is_held(device: str, address: str) -> bool:
    """Return whether another machine on the segment of *device* says that the IPv4 *address* is its own."""
    wanted = socket.inet_aton(address)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP)) as segment:
        segment.bind((device, ETH_P_ARP))
        own = segment.getsockname()[4]
        # Of no address: whoever hears it must not remember us by one that may be another's.
        asked = b"\xff" * 6 + own + struct.pack("!H", ETH_P_ARP) + _ARP + own + bytes(4 + 6) + wanted
        for _ in range(PROBES):
            segment.send(asked)
            deadline = time.monotonic() + PROBE_S
            while heard := _receive(segment, deadline):
                if heard[_SENDERS_ADDRESS] == wanted and heard[_SENDER] != own:
                    return True
    return False


def _receive(segment: socket.socket, deadline: float) -> bytes:
    """Return the next frame; nothing if there is none by *deadline*, on the monotonic clock."""
    left = deadline - time.monotonic()
    if left <= 0:
        return b""
    segment.settimeout(left)
    try:
        return segment.recv(64)
    except TimeoutError:
        return b""


def is_duplicate(device: str, address: str) -> bool:
    """Wait until the kernel knows whether the IPv6 *address* of *device* is another's, too; return that."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        words = _ip("-o", "-6", "addr", "show", "dev", device, "to", address).split()
        if "dadfailed" in words:
            return True
        if "tentative" not in words or time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)


def _ip(*words: str) -> str:
    command = ["ip", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60.0).stdout


def _tell(address: str) -> None:
    print(f"LAB: {address} is not taken, another machine has it", file=sys.stderr, flush=True)
