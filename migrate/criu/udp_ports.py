"""The UDP ports that CRIU will bind sockets of its images to, on the destination.

CRIU gives each of them SO_REUSEADDR and SO_REUSEPORT until it is bound, so a program that has the port there, and
lets it be shared, does not make it fail. Source: criu/sk-inet.c open_inet_sk(), images/sk-inet.proto.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

from migrate.criu import records
from migrate.pb.session_pb2 import TakenName

_WORDS = {int(socket.AF_INET): 1, int(socket.AF_INET6): 4}


def of_images(images: Path) -> list[TakenName]:
    """Each as the inventory names it, but for its number and for who has it.

    :raises ProtocolError: the image is not CRIU's.
    """
    files = images / "files.img"
    return bound(files.read_bytes()) if files.exists() else []


def bound(files: bytes) -> list[TakenName]:
    """As :func:`of_images`, of files.img. :raises ProtocolError: it is not an image of CRIU's."""
    from pycriu.images import pb

    found = (one.isk for one, _ in records.read(files, pb.file_entry, "files.img") if one.HasField("isk"))
    return [_name(one) for one in found if one.proto == socket.IPPROTO_UDP and one.src_port]


def _name(isk: Any) -> TakenName:
    """CRIU keeps an address as the words of memory in which the kernel had it in network order."""
    if _WORDS.get(isk.family) != len(isk.src_addr):
        raise records.broken("files.img")
    return TakenName(
        kind=TakenName.UDP,
        port=isk.src_port,
        ip=struct.pack(f"<{len(isk.src_addr)}I", *isk.src_addr),
        ipv6_only=isk.v6only,
        shares=bool(isk.opts.reuseaddr or isk.opts.so_reuseport),
    )
