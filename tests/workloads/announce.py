"""Tells the neighbours where an address is now, as ``arping -U -A`` does: ``announce.py DEVICE ADDRESS``.

For the script of stock CRIU, where arping is not installed, and for taker.py. Source: RFC 5227 section 3.
"""

import functools
import socket
import struct
import sys


@functools.cache
def open_sender(device: str) -> socket.socket:
    """A socket that sends frames on *device*."""
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sender.bind((device, 0))
    return sender


def main(device: str, address: str) -> None:
    """Send the announcement as a request and as a reply: each is ignored by some stacks."""
    sender = open_sender(device)
    here, ip = sender.getsockname()[4], socket.inet_aton(address)
    for operation in (1, 2):
        header = b"\xff" * 6 + here + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, operation)
        sender.send(header + here + ip + (b"\0" * 6 if operation == 1 else here) + ip)


if __name__ == "__main__":
    main(*sys.argv[1:])
