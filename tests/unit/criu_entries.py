"""Records of CRIU's images, as a dump writes them."""

from __future__ import annotations

import socket
import struct


def udp_entry(
    proto: int = 17, port: int = 5353, address: str = "127.0.0.1", words: int = 0, **opts: bool
) -> bytes:
    """A record of files.img."""
    from pycriu.images import pb

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    fown = pb.fown_entry(uid=0, euid=0, signum=0, pid_type=0, pid=0)
    times = ("so_snd_tmo_sec", "so_snd_tmo_usec", "so_rcv_tmo_sec", "so_rcv_tmo_usec")
    its = pb.sk_opts_entry(so_sndbuf=1, so_rcvbuf=1, **dict.fromkeys(times, 0), **opts)
    isk = pb.inet_sk_entry(
        id=1, ino=1, family=family, type=2, proto=proto, state=7, src_port=port, dst_port=0, flags=2, backlog=0,
        src_addr=struct.unpack(f"<{len(packed) // 4}I", packed)[words:], fown=fown, opts=its, v6only=True,
    )  # fmt: skip
    message = pb.file_entry(type=pb.fd_types.Value("INETSK"), id=1, isk=isk).SerializeToString()
    return struct.pack("<I", len(message)) + message
