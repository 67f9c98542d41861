"""The ICIs of the golden images. Run as a script, it writes them: only when the format's version changes."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_address
from pathlib import Path

from tcpcp.record import codec
from tcpcp.record.ici import (
    Congestion,
    Endpoint,
    Ici,
    Negotiated,
    ReceiveQueue,
    SendQueue,
    State,
    Timestamp,
    Window,
)

_BUFFERS = {"SO_RCVBUF": 131072, "SO_SNDBUF": 16384}
_ESTABLISHED = Ici(
    state=State.ESTABLISHED,
    local=Endpoint(ip_address("10.77.1.100"), 80),
    peer=Endpoint(ip_address("10.77.2.1"), 40000),
    negotiated=Negotiated(True, True, True, False, 7, 9, 1460, 1448),
    snd_nxt=0x01020304,
    rcv_nxt=3000000000,
    window=Window(2999999980, 64256, 65280, 65536, 2999999990),
    congestion=Congestion("cubic", 10, 0x7FFFFFFF, 1250, 625),
    timestamp=Timestamp(123456788, False, 987654321),
    send_queue=SendQueue(b"sent", b"unsent"),
    receive_queue=ReceiveQueue(b"unread"),
    options={"SO_KEEPALIVE": 1, "SO_RCVBUF": 131072, "SO_SNDBUF": 87040, "TCP_KEEPIDLE": 60},
    tag=15782,
)

#: Has a file for each name.
DIRECTORY = Path(__file__).parent / "golden"
#: name -> ICI.
GOLDEN = {
    "established": _ESTABLISHED,
    "wrapped": dataclasses.replace(
        _ESTABLISHED,
        snd_nxt=2,
        rcv_nxt=1,
        window=Window(0, 0, 64256, 0, 1),
        timestamp=Timestamp(0xFFFFFFFF, True),
    ),
    "bare": dataclasses.replace(
        _ESTABLISHED,
        negotiated=Negotiated(False, False, False, False, 0, 0, 536, 1460),
        window=Window(3000000000, 65535, 65535, 65535, 3000000000),
        timestamp=None,
        send_queue=SendQueue(),
        receive_queue=ReceiveQueue(),
        options=_BUFFERS,
        tag=0,
    ),
    "last_ack_ipv6": dataclasses.replace(
        _ESTABLISHED,
        state=State.LAST_ACK,
        local=Endpoint(ip_address("fe80::1"), 443),
        peer=Endpoint(ip_address("fe80::2"), 50000),
        ipv6_socket=True,
        device="eth0",
        send_queue=SendQueue(b"sent", fin=True, fin_sent=True),
        receive_queue=ReceiveQueue(b"unread", fin=True),
        options={**_BUFFERS, "IPV6_TCLASS": 16, "SO_BUF_LOCK": 3, "SO_LINGER": -1, "SO_RCVTIMEO": 2500000},
    ),
    "fin_wait2_mapped": dataclasses.replace(
        _ESTABLISHED, state=State.FIN_WAIT2, ipv6_socket=True, send_queue=SendQueue(fin=True)
    ),
    "close_filter": dataclasses.replace(
        _ESTABLISHED,
        state=State.CLOSE,
        send_queue=SendQueue(fin=True),
        receive_queue=ReceiveQueue(b"unread", fin=True, shut=True),
        socket_filter=bytes.fromhex("0006000000040000"),  # ret #262144
    ),
}


def main() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for name, ici in GOLDEN.items():
        (DIRECTORY / f"{name}.ici").write_bytes(codec.dumps(ici))


if __name__ == "__main__":
    main()
