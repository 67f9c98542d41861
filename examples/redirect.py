"""Packets of single connections go to another host (paper section 2.2, step 8 of section 2).

Clients and routers go on sending to the host that has the service address as far as they know. That host
hands the packets of connections that were passed on to the host that has them now, unchanged, before its own
TCP sees them. The other host has the service address too, on ``lo`` and without answering ARP for it, and
answers clients directly: "direct routing", as the Linux Virtual Server calls it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

#: After its end a connection's last packets are answered by the taker's kernel for so long (TIME_WAIT).
LINGER_S = 60.0

Peer = tuple[str, int]
Nft = asyncio.subprocess.Process


def host_and_port(text: str) -> tuple[str, int]:
    """Of ``HOST:PORT``; an IPv6 address is in brackets. :raises ValueError: it is not that."""
    host, _, port = text.rpartition(":")
    if not host:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


@dataclass(frozen=True)
class Taker:
    """Where a program listens for connections that are handed to it.

    :ivar via: address of its host by IP version: where packets are redirected to.
    """

    host: str
    port: int
    via: dict[int, str]

    @classmethod
    def parse(cls, text: str) -> Taker:
        """From ``HOST:PORT``. Asks the resolver, so: before the event loop runs."""
        host, port = host_and_port(text)
        found = [ipaddress.ip_address(entry[4][0]) for entry in socket.getaddrinfo(host, None)]
        return cls(host, port, {ip.version: str(ip) for ip in found})


class Redirect:
    """An nft map from peer to the host that has its connection, and the rule that forwards by it.

    ``fwd`` in the ingress hook replaces nothing but the link-layer addresses: it needs no routing, no
    ip_forward, no connection tracking, and a connection costs one element. The table outlives this program
    as long as connections that were passed on need it. Source: nft(8), "FWD STATEMENT".

    :param services: addresses of the service, on this host; :param port: its port.
    :param ingress: interface by which the clients' packets come; :param egress: the one to the takers.
    """

    def __init__(self, services: Sequence[str], port: int, ingress: str, egress: str) -> None:
        self.table = f"netdev passed-{port}"
        rules = [f"add table {self.table}"]
        for family, kind in (("ip", "ipv4_addr"), ("ip6", "ipv6_addr")):
            rules.append(f"add map {self.table} via_{family} {{ type {kind} . inet_service : {kind}; }}")
        rules.append(f"add chain {self.table} in {{ type filter hook ingress device {ingress} priority 0; }}")
        rules.append(f"flush chain {self.table} in")
        for service in services:
            family = _family(service)
            rules.append(
                f"add rule {self.table} in {family} daddr {service} tcp dport {port} "
                f"fwd {family} to {family} saddr . tcp sport map @via_{family} device {egress}"
            )
        self._rules = "\n".join(rules)
        self.passed: set[Peer] = set()

    async def open(self) -> None:
        """Make the table; elements of an earlier run stay. :raises OSError: nft refused."""
        await self._run(await self.prepare(), self._rules)

    async def prepare(self) -> Nft:
        """Start nft for one :meth:`add` to come: to start it takes longer than what it then does."""
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec("nft", "-f", "-", stdin=pipe, stderr=pipe)

    async def add(self, nft: Nft, peers: Sequence[Peer], taker: Taker) -> None:
        """Send what comes from *peers* to *taker* from now on: all of them, or none and OSError.

        :param nft: from :meth:`prepare`.
        """
        lines = []
        for ip, port in peers:
            via = taker.via.get(ipaddress.ip_address(ip).version)
            if via is None:
                raise OSError(f"{taker.host} has no address of the family of {ip}")
            lines.append(f"add element {self.table} via_{_family(ip)} {{ {ip} . {port} : {via} }}")
        await self._run(nft, "\n".join(lines))
        self.passed.update(peers)

    async def remove(self, peer: Peer) -> None:
        """Forget *peer*, whose connection has ended, when nothing of it can come any more."""
        self.passed.discard(peer)
        await asyncio.sleep(LINGER_S)
        element = f"via_{_family(peer[0])} {{ {peer[0]} . {peer[1]} }}"
        await self._run(await self.prepare(), f"delete element {self.table} {element}")

    async def close(self) -> None:
        """Remove the table, unless connections that are elsewhere need it."""
        if self.passed:
            print(
                f"{len(self.passed)} connections need the rules still; later: nft delete table {self.table}"
            )
            return
        await self._run(await self.prepare(), f"delete table {self.table}")

    @staticmethod
    async def _run(nft: Nft, script: str) -> None:
        _, errors = await nft.communicate(script.encode())
        if nft.returncode:
            raise OSError(f"nft: {errors.decode(errors='replace').strip()}")


def _family(ip: str) -> str:
    """nft's word for the family of *ip*."""
    return "ip6" if ":" in ip else "ip"
