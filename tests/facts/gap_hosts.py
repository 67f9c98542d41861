"""Three hosts on one segment for the tests of the gap, and a service that moves between two of them."""

from __future__ import annotations

import ipaddress
import socket
import struct
import subprocess
from dataclasses import dataclass

from netns import Namespace, eventually, ip

from migrate.gap import capture as gap
from migrate.gap import packets
from tcpcp.endpoint import calls
from tcpcp.endpoint.isolation import Flow
from tcpcp.record.ici import Endpoint, Ici

SERVICE = {4: "10.9.0.100", 6: "fd09::100"}
PORT = 7000
#: What the peer sends it sends again after so long, and who waits for a timer is told from who does not.
PATIENCE_S = 2


def bits(version: int) -> int:
    return 24 if version == 4 else 64


class GapHosts:
    """origin .1, destination .2, peer .3 of 10.9.0.0/24 and fd09::/64; the service is on origin at first."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.segment = Namespace()
        with self.segment.entered():
            ip("link add br0 type bridge mcast_snooping 0")
            ip("link set br0 up")
        self.origin, self.destination, self.peer = (self._host(n) for n in (1, 2, 3))
        with self.origin.entered():
            for version in (4, 6):
                self.have(version)
        # On a busy machine a gap lasts longer than the fifth of a second after which a peer repeats itself.
        with self.peer.entered():
            for address in SERVICE.values():
                ip(f"route add {address} dev eth0 rto_min {PATIENCE_S}s")

    def _host(self, number: int) -> Namespace:
        host = Namespace()
        with self.segment.entered():
            ip(f"link add port{number} type veth peer name eth0 netns {host.path}")
            ip(f"link set port{number} master br0 up")
        with host.entered():
            ip("link set eth0 up")
            ip(f"addr add 10.9.0.{number}/24 dev eth0")
            ip(f"addr add fd09::{number}/64 dev eth0 nodad")
        return host

    def have(self, version: int) -> None:
        """The service address for the host whose namespace the caller is in."""
        ip(f"addr add {SERVICE[version]}/{bits(version)} dev eth0" + (" nodad" if version == 6 else ""))

    def withdraw(self, version: int) -> None:
        with self.origin.entered():
            ip(f"addr del {SERVICE[version]}/{bits(version)} dev eth0")

    def take_back(self, version: int) -> None:
        """The service address is on origin again, and the peer sends there."""
        with self.destination.entered():
            ip(f"addr del {SERVICE[version]}/{bits(version)} dev eth0")
        with self.origin.entered():
            self.have(version)
        self._announce(self.origin, version)

    def announce(self, version: int) -> None:
        """From now on the peer sends to the destination."""
        self._announce(self.destination, version)

    def _announce(self, host: Namespace, version: int) -> None:
        with host.entered():
            mac = ip("-o link show eth0").split("link/ether ")[1].split()[0]
        with self.peer.entered():
            ip(f"neigh replace {SERVICE[version]} lladdr {mac} dev eth0 nud reachable")

    def know_the_peer(self, version: int) -> None:
        """The destination need not ask for the peer's hardware address, by which the peer would learn its."""
        with self.peer.entered():
            mac = ip("-o link show eth0").split("link/ether ")[1].split()[0]
        with self.destination.entered():
            ip(
                f"neigh replace {'10.9.0.3' if version == 4 else 'fd09::3'} lladdr {mac} dev eth0 nud permanent"
            )

    def listen(self, version: int) -> socket.socket:
        with self.origin.entered():
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            return socket.create_server((SERVICE[version], PORT), family=family)

    def connect(self, version: int) -> tuple[socket.socket, socket.socket]:
        """The service's end on the origin and the peer's."""
        listener = self.listen(version)
        with self.peer.entered():
            peer = socket.create_connection((SERVICE[version], PORT))
        sock, _ = listener.accept()
        listener.close()
        for one in (sock, peer):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.settimeout(10)
            self.sockets.append(one)
        return sock, peer

    def nft(self, host: Namespace, script: str) -> None:
        with host.entered():
            subprocess.run(["nft", script], check=True)

    def counters(self, host: Namespace) -> dict[str, int]:
        """nstat's absolute counters."""
        with host.entered():
            text = subprocess.run(["nstat", "-asz"], check=True, capture_output=True, text=True).stdout
        rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
        return {row[0]: int(row[1]) for row in rows}

    def close(self) -> None:
        for one in self.sockets:
            if one.fileno() >= 0:
                # At once: an IPv6 orphan may keep its device from being deleted.
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.close()
        for host in (self.segment, self.origin, self.destination, self.peer):
            host.close()  # the kernel takes it apart; to delete a device by hand can wait for minutes


def end(version: int, port: int = PORT) -> Endpoint:
    return Endpoint(ipaddress.ip_address(SERVICE[version]), port)


@dataclass
class Moving:
    """A connection on its way: taken from the origin, rebuilt on the destination, held on both."""

    hosts: GapHosts
    version: int
    flow: Flow
    ici: Ici
    rebuilt: socket.socket | None = None

    @classmethod
    def get(cls, hosts: GapHosts, version: int, sock: socket.socket) -> Moving:
        with hosts.origin.entered():
            flow = calls.flow_of(sock)
            ici = calls.get(sock)
            calls.release(sock)
        return cls(hosts, version, flow, ici)

    def rebuild(self) -> None:
        self.hosts.withdraw(self.version)
        with self.hosts.destination.entered():
            self.hosts.have(self.version)
            # Filters that stay, as the driver's do: to remove them takes 10 ms and more, after the peer was woken.
            calls.prepare()
            self.rebuilt = calls.create(self.ici)
        self.hosts.announce(self.version)

    def activate(self) -> socket.socket:
        assert self.rebuilt is not None
        with self.hosts.destination.entered():
            calls.activate(self.rebuilt)
        self.rebuilt.settimeout(10)
        self.hosts.sockets.append(self.rebuilt)
        return self.rebuilt


def wait_caught(capture: gap.Capture, count: int) -> list[packets.Segment]:
    """The next *count* packets."""
    caught: list[packets.Segment] = []

    def enough() -> bool:
        caught.extend(capture.take())
        return len(caught) >= count

    eventually(enough, f"{count} packets")
    assert len(caught) == count
    return caught


def receive_all(sock: socket.socket, size: int) -> bytes:
    """The next *size* bytes."""
    received = b""
    while len(received) < size:
        piece = sock.recv(size - len(received))
        assert piece
        received += piece
    return received


def payloads(caught: list[packets.Segment]) -> bytes:
    return b"".join(segment.payload for segment in caught)


def since(hosts: GapHosts, before: dict[str, int]) -> dict[str, int]:
    """What the peer's TCP did out of the ordinary since *before*."""
    names = ("TcpRetransSegs", "TcpExtTCPTimeouts", "TcpExtTCPLossProbes", "TcpEstabResets", "TcpOutRsts")
    now = hosts.counters(hosts.peer)
    return {name: now[name] - before[name] for name in names if now[name] != before[name]}
