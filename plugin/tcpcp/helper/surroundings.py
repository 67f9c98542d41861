"""What `policy` is told about this host: its limits, and whose sockets are where."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from tcpcp.helper.policy import Limits, Rights
from tcpcp.kernel import diag
from tcpcp.record import addresses
from tcpcp.record.ici import Ici

_SYSCTL = Path("/proc/sys/net")
#: net.core.rmem_max and wmem_max where this network namespace does not show them (before Linux 6.9).
_DEFAULT_MAX_BYTES = 212992


def limits() -> Limits:
    """As they are now."""
    return Limits(
        int((_SYSCTL / "ipv4/ip_unprivileged_port_start").read_text()),
        _buffer_bytes("w"),
        _buffer_bytes("r"),
        frozenset((_SYSCTL / "ipv4/tcp_allowed_congestion_control").read_text().split()),
    )


def _buffer_bytes(kind: str) -> int:
    try:
        settable = int((_SYSCTL / f"core/{kind}mem_max").read_text())
    except FileNotFoundError:
        settable = _DEFAULT_MAX_BYTES
    tuned = int((_SYSCTL / f"ipv4/tcp_{kind}mem").read_text().split()[2])
    return max(2 * settable, tuned)  # the kernel doubles what is set


def taken(icis: Sequence[Ici], uid: int, rights: Rights) -> list[str]:
    """Which of the local ends of *icis* is where another user has a socket: one sentence each.

    Sockets without a descriptor (TIME_WAIT, not accepted yet) have no owner, and are nobody's.
    """
    wanted = {ici.local.port for ici in icis if ici.local.port and not rights.may_claim(ici.local.port)}
    if not wanted:
        return []
    others = [one for one in diag.tcp() if one.inode and one.uid != uid and one.local_port in wanted]
    return [f"{ici.local} belongs to user {one.uid}" for ici in icis for one in others if _overlap(ici, one)]


def _overlap(ici: Ici, entry: diag.Entry) -> bool:
    if ici.local.port != entry.local_port:
        return False
    ip, wanted = ipaddress.ip_address(entry.local_ip), ici.local.ip
    if ip.version == 6 and ip.is_unspecified:  # this one takes IPv4 too, unless it says otherwise
        return wanted.version == 6 or not entry.v6only
    if ip.is_unspecified:
        return wanted.version == 4
    return addresses.address(entry.local_ip) == wanted
