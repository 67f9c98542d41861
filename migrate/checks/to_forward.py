"""What would be forwarded, and to which address of the destination. Pure."""

from __future__ import annotations

import ipaddress

from migrate.inventory import ports
from migrate.pb.session_pb2 import HostInventory, ProcessInventory
from tcpcp.endpoint.isolation import Flow
from tcpcp.record.ici import Endpoint


def neighbour(there: HostInventory, ip: str, prefix_length: int) -> str:
    """The destination's own address on the network of the origin's address *ip*; "" if it has none there."""
    network = ipaddress.ip_interface(f"{ip}/{prefix_length}").network
    for interface in there.interfaces:
        for text in interface.addresses if interface.up else ():
            found = ipaddress.ip_interface(text)
            if found.ip in network and network.prefixlen < network.max_prefixlen:
                return str(found.ip)
    return ""


def flows(process: ProcessInventory) -> list[Flow]:
    """Its connections."""
    found = (one for one in process.sockets if ports.is_connection(one))
    return [Flow(_end(one.local_ip, one.local_port), _end(one.peer_ip, one.peer_port)) for one in found]


def _end(ip: bytes, port: int) -> Endpoint:
    return Endpoint(ipaddress.ip_address(ip), port)


def has(host: HostInventory, ip: str) -> bool:
    """Whether it is an address of *host*, as text."""
    return any(text.partition("/")[0] == ip for interface in host.interfaces for text in interface.addresses)
