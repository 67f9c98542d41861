"""lying_driver.py LIE [STRANGER] -- ARGUMENT...: `migrate` as somebody would have it who means no good.

Runs the real driver; what it sends is changed on its way, as LIE says. STRANGER is a PID on the destination.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import sys
from collections.abc import Callable
from typing import Any

from migrate import cli
from migrate.link import frames
from migrate.link.link import Link
from migrate.pb import session_pb2 as pb
from tcpcp.record import codec

_send = Link.send
_written: dict[str, Any] = {}


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


def _others_ici(link: Link, message: Any, stranger: int) -> None:
    """All connections on the destination's own address; the hashes are right."""
    if isinstance(message, pb.FileChunk) and message.name == "ici.img":
        icis = [_moved(one) for one in codec.loads_many(message.data)]
        message.data = b"".join(map(codec.dumps, icis))
        _written["ici.img"] = _written.get("ici.img", b"") + message.data
    if isinstance(message, pb.Restore):
        for one in message.manifest.files:
            if one.name in _written:
                one.sha256 = hashlib.sha256(_written[one.name]).digest()
                one.size_bytes = len(_written[one.name])


def _moved(ici: Any) -> Any:
    own = ipaddress.ip_address("10.77.1.2" if ici.local.ip.version == 4 else "fd77:1::2")
    return dataclasses.replace(ici, local=dataclasses.replace(ici.local, ip=own))


def _order(link: Link, message: Any, stranger: int) -> None:
    if isinstance(message, pb.Switch):
        _send(link, pb.Commit())


def _image(**changed: Any) -> Callable[[Link, Any, int], None]:
    def change(link: Link, message: Any, stranger: int) -> None:
        if isinstance(message, pb.FileChunk) and message.name == "inventory.img":
            for name, value in changed.items():
                setattr(message, name, value)

    return change


def _manifest(link: Link, message: Any, stranger: int) -> None:
    if isinstance(message, pb.Restore):
        message.manifest.files[0].size_bytes = 1 << 63


def _copy(link: Link, message: Any, stranger: int) -> None:
    if isinstance(message, pb.FileChunk) and message.name == "inventory.img":
        chunk = pb.FileChunk(name="/srv/../root/written", data=b"evil", last=True, mode=0o100644)
        _send(link, chunk, kind="copy")


def _gap(link: Link, message: Any, stranger: int) -> None:
    if isinstance(message, pb.Switch):
        _send(link, pb.GapPackets(packets=[b"", b"\x45", b"\x60" * 39, b"\x45" + bytes(70_000)]))


def _frame(link: Link, message: Any, stranger: int) -> None:
    if isinstance(message, pb.Restore):
        link._stream.write((frames.MAX_FRAME_BYTES + 1).to_bytes(4, "big") + b"x")


LIES: dict[str, Callable[[Link, Any, int], None]] = {
    "stranger": _stranger,
    "other-root": _other_root,
    "others-address": _others_address,
    "others-ici": _others_ici,
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
        lie(link, message, stranger)
        _send(link, message, **more)

    Link.send = send  # type: ignore[method-assign]
    return cli.main(sys.argv[where + 1 :])


if __name__ == "__main__":
    sys.exit(main())
