"""What the destination is told beside the images and the connections: all that was found of the tree."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from migrate.inventory.plain_options import Held
from migrate.origin import connections
from migrate.origin.stages import _restore_message
from migrate.pb import session_pb2 as pb
from migrate.pb.manifest_pb2 import Manifest
from tcpcp.criu.tree import HeldSocket

CONNECTED, ORPHANED, ELSE = (HeldSocket(inode, [(7, inode)]) for inode in (101, 102, 103))


def option_of(inode: int, name: str) -> Any:
    return SimpleNamespace(inode=inode, options={name: 1}, congestion="cubic")


def test_everything_found_is_said() -> None:
    """How many connections there are finds one that was lost on its way."""
    extract = SimpleNamespace(
        connections={101: None, 104: None, 105: None},
        closed=[106],
        listeners=[option_of(107, "SO_KEEPALIVE")],
        unconnected=[option_of(108, "TCP_NODELAY")],
    )
    numbers: Any = SimpleNamespace(inside=lambda pid: pid - 6)
    found: Any = SimpleNamespace(
        extract=extract,
        held=connections.holders([CONNECTED, ORPHANED], numbers),
        options=[Held(ELSE, {"SO_PRIORITY": 3, "SO_BINDTODEVICE": b"eth0"}), Held(CONNECTED, {"SO_MARK": 4})],
        tree=SimpleNamespace(numbers=numbers),
    )
    manifest, tasks = Manifest(migration_id="0123456789ab"), [pb.TaskState(pid=1, state="S")]
    assert _restore_message(manifest, found, tasks, 2.5) == pb.Restore(
        most_ms=2500,
        manifest=manifest,
        tasks=tasks,
        closed=[106],
        connections=3,
        # Of a connection they come with its record.
        sockets=[
            pb.HeldSocket(inode=inode, holders=[pb.Descriptor(pid=1, fd=inode)]) for inode in (102, 103)
        ],
        others=[
            pb.SocketOptions(inode=103, options={"SO_PRIORITY": 3}, values={"SO_BINDTODEVICE": b"eth0"}),
            pb.SocketOptions(inode=101, options={"SO_MARK": 4}),
        ],
        listeners=[
            pb.SocketOptions(inode=107, options={"SO_KEEPALIVE": 1}, congestion="cubic"),
            pb.SocketOptions(inode=108, options={"TCP_NODELAY": 1}, congestion="cubic"),
        ],
    )
