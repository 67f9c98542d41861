"""Tell the neighbours where an address is now: gratuitous ARP and unsolicited neighbour advertisements.

The bytes are made by pure functions; :func:`announce` sends them on a packet socket.

Source: RFC 5227 section 3 and RFC 826 (ARP), RFC 4861 section 7.2.6 (unsolicited advertisement).
"""

from __future__ import annotations

import functools
import ipaddress
import socket
import struct

from tcpcp.record.checksum import checksum

ETH_P_ARP = 0x0806
ETH_P_IPV6 = 0x86DD
ICMPV6 = 58
ALL_NODES = ipaddress.IPv6Address("ff02::1")

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def announce(device: str, ip: Ip) -> None:
    """Say on *device* that *ip* is at this host's hardware address; nobody answers.

    :raises OSError: the device is gone or down.
    """
    sender = open_sender(device)
    hardware = sender.getsockname()[4]
    for frame in frames(hardware, ip):
        sender.send(frame)


@functools.cache
def open_sender(device: str) -> socket.socket:
    """A packet socket on *device*, kept until this program ends: to close one waits 10 ms and more for the
    other processors (net/packet/af_packet.c packet_release()).

    :raises OSError: as :func:`announce`.
    """
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    try:
        sender.bind((device, 0))
    except OSError:
        sender.close()
        raise
    return sender


def frames(hardware: bytes, ip: Ip) -> list[bytes]:
    """The frames that announce *ip* at *hardware*.

    For IPv4 an announcement as a request and one as a reply: each is ignored by some stacks.
    """
    if isinstance(ip, ipaddress.IPv6Address):
        return [neighbour_advertisement(hardware, ip)]
    return [gratuitous_arp(hardware, ip, operation) for operation in (1, 2)]


def gratuitous_arp(hardware: bytes, ip: ipaddress.IPv4Address, operation: int) -> bytes:
    """An ARP announcement; *operation* 1 is a request, 2 a reply."""
    broadcast = b"\xff" * 6
    ethernet = broadcast + hardware + struct.pack("!H", ETH_P_ARP)
    header = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    target = b"\0" * 6 if operation == 1 else hardware
    return ethernet + header + hardware + ip.packed + target + ip.packed


def neighbour_advertisement(hardware: bytes, ip: ipaddress.IPv6Address) -> bytes:
    """An unsolicited neighbour advertisement with the override flag, to all nodes."""
    flags = 0x20000000
    option = struct.pack("!BB", 2, 1) + hardware
    body = struct.pack("!BBHI", 136, 0, 0, flags) + ip.packed + option
    pseudo = ip.packed + ALL_NODES.packed + struct.pack("!II", len(body), ICMPV6)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), ICMPV6, 255) + ip.packed + ALL_NODES.packed
    ethernet = b"\x33\x33" + ALL_NODES.packed[12:] + hardware + struct.pack("!H", ETH_P_IPV6)
    return ethernet + header + body
