"""Takes a connection from giver.py and goes on sending: ``taker.py ADDRESS/BITS DEVICE PORT PEER``.

Before: the address is added here, mute (nothing of ARP for it goes in or out), and the way to the peer is
used once, so that the next hop is known: asking for it from the mute address has no answer. Told that a
connection is coming, this program passes some of its own, while the origin goes on serving: what was not run
for a while takes twice as long. In the gap: the image arrives over a TCP connection that is open already; the
endpoint is created, not isolated, since no packet comes here yet; this host announces the address; the endpoint
is activated; the program goes on sending. After: the mute ends, and the origin withdraws the address.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

import announce
from body import Body
from giver import HEAD
from warm import pass_some

import tcpcp

MUTE = """table arp passing {{
    chain in {{ type filter hook input priority 0; arp daddr ip {ip} drop; }}
    chain out {{ type filter hook output priority 0; arp saddr ip {ip} drop; }}
}}"""


def take(control: socket.socket, device: str, ip: str) -> tuple[socket.socket, Body, dict[str, float]]:
    """Wait for the connection and let it run."""
    stream = control.makefile("rb")
    stream.readline()
    pass_some()
    control.sendall(b"ready\n")
    offset, total, rate, size = HEAD.unpack(stream.read(HEAD.size))
    image = stream.read(size)
    began = time.monotonic()
    sock = tcpcp.create(tcpcp.loads(image), isolate=False, same_path=True)
    made = time.monotonic()
    announce.main(device, ip)
    told = time.monotonic()
    tcpcp.activate(sock)
    ended = time.monotonic()
    times = {
        "create_ms": 1000 * (made - began),
        "announce_ms": 1000 * (told - made),
        "activate_ms": 1000 * (ended - told),
        "ended_s": ended,
    }
    return sock, Body(total, rate, offset), times


def main(address: str, device: str, port: int, peer: str) -> None:
    """Take one connection, and end it well."""
    ip = address.partition("/")[0]
    subprocess.run(["nft", MUTE.format(ip=ip)], check=True)
    subprocess.run(["ip", "address", "add", address, "dev", device], check=True)
    announce.open_sender(device)
    tcpcp.prepare()
    pass_some()
    with socket.socket(type=socket.SOCK_DGRAM) as greeting:
        greeting.sendto(b"", (peer, 9))
    with socket.create_server(("0.0.0.0", port)) as listening:
        print("ready", flush=True)
        control, _ = listening.accept()
    sock, body, times = take(control, device, ip)
    body.send(sock, body.sent + body.chunk_bytes)
    control.sendall(json.dumps(times).encode() + b"\n")
    unmute = subprocess.Popen(["nft", "delete table arp passing"])
    body.send(sock, body.total_bytes)
    sock.shutdown(socket.SHUT_WR)
    unmute.wait()
    time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
