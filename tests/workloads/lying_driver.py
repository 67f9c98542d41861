"""lying_driver.py LIE [STRANGER] -- ARGUMENT...: `migrate` as somebody would have it who means no good.

Runs the real driver; what it sends is changed on its way, as LIE says. STRANGER is a PID on the destination.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import sys
from collections.abc import Callable
from typing import Any

from migrate import cli
from migrate.link import frames
from migrate.link.link import Link
from migrate.link.payloads import Connections, Packets, Piece
from migrate.pb import session_pb2 as pb
from tcpcp.record import codec

_send = Link.send


def _stranger(link: Link, message: Any, stranger: int) -> None:
    if isinstance(message, pb.Prepare):
        del message.pids[:]
        message.pids.append(stranger)


def _other_root(link: Link, message: Any, stranger: int) -> None:
    if isinstance(message, pb.Restore):
        del message.tasks[:]
        message.tasks.add(pid=stranger, state="S")


def _others_address(link: Link, message: Any, stranger: int) -> None:
    if isinstance(message, pb.Prepare):
        message.addresses.add(address="10.77.1.2", prefix_length=24)


def _others_ici(link: Link, message: Any, stranger: int) -> Any:
    """All connections on the destination's own address."""
    if isinstance(message, Connections):
        icis = [_moved(one) for one in codec.loads_many(message.records)]
        return Connections(b"".join(map(codec.dumps, icis)), message.sockets)
    return None


def _lost(link: Link, message: Any, stranger: int) -> Any:
    """The last of the connections does not arrive."""
    if isinstance(message, Connections):
        icis = list(codec.loads_many(message.records))
        return Connections(b"".join(map(codec.dumps, icis[:-1])), message.sockets)
    return None


def _unheld(link: Link, message: Any, stranger: int) -> Any:
    """Nobody holds the connections."""
    return Connections(message.records) if isinstance(message, Connections) else None


def _moved(ici: Any) -> Any:
    own = ipaddress.ip_address("10.77.1.2" if ici.local.ip.version == 4 else "fd77:1::2")
    return dataclasses.replace(ici, local=dataclasses.replace(ici.local, ip=own))


def _order(link: Link, message: Any, stranger: int) -> None:
    if isinstance(message, pb.Switch):
        _send(link, pb.Commit())


def _image(**changed: Any) -> Callable[[Link, Any, int], None]:
    def change(link: Link, message: Any, stranger: int) -> None:
        if isinstance(message, Piece) and message.name == "inventory.img":
            for name, value in changed.items():
                setattr(message, name, value)

    return change


def _manifest(link: Link, message: Any, stranger: int) -> None:
    if isinstance(message, pb.Restore):
        message.manifest.files[0].size_bytes = 1 << 63


def _copy(link: Link, message: Any, stranger: int) -> None:
    if isinstance(message, Piece) and message.name == "inventory.img":
        chunk = Piece(name="/srv/../root/written", data=b"evil", last=True, mode=0o100644)
        _send(link, chunk, kind="copy")


def _gap(link: Link, message: Any, stranger: int) -> None:
    if isinstance(message, pb.Switch):
        _send(link, Packets([b"", b"\x45", b"\x60" * 39, b"\x45" + bytes(70_000)]))


def _frame(link: Link, message: Any, stranger: int) -> None:
    if isinstance(message, pb.Restore):
        link._stream.write((frames.MAX_FRAME_BYTES + 1).to_bytes(4, "big") + b"x")


LIES: dict[str, Callable[[Link, Any, int], Any]] = {
    "stranger": _stranger,
    "other-root": _other_root,
    "others-address": _others_address,
    "others-ici": _others_ici,
    "lost-ici": _lost,
    "unheld": _unheld,
    "order": _order,
    "image-name": _image(name="../../root/written"),
    "image-offset": _image(offset=1 << 40),
    "manifest": _manifest,
    "copy-path": _copy,
    "gap": _gap,
    "frame": _frame,
}


def main() -> int:
    """Run the driver."""
    where = sys.argv.index("--")
    lie, stranger = LIES[sys.argv[1]], int((sys.argv[2:where] or ["0"])[0])

    def send(link: Link, message: Any, **more: Any) -> None:
        _send(link, lie(link, message, stranger) or message, **more)

    Link.send = send  # type: ignore[method-assign]
    return cli.main(sys.argv[where + 1 :])


if __name__ == "__main__":
    sys.exit(main())
