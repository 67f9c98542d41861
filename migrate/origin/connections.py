"""The connections of the tree as they are read: ICI records in batches, with those who hold the sockets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from migrate.link.payloads import CHUNK_BYTES, Connections
from migrate.origin.move import Move
from migrate.pb import session_pb2 as pb
from migrate.processes.own_numbers import Numbers
from tcpcp.criu.tree import HeldSocket
from tcpcp.record import codec
from tcpcp.record.ici import Ici


def holders(held: Iterable[HeldSocket], numbers: Numbers) -> dict[int, pb.HeldSocket]:
    """By inode, as they are said; best made before somebody waits.

    :param numbers: of the tree, as it sees them.
    """
    inside = numbers.inside
    return {
        one.inode: pb.HeldSocket(
            inode=one.inode, holders=[pb.Descriptor(pid=inside(pid), fd=fd) for pid, fd in one.holders]
        )
        for one in held
    }


def send(icis: Iterable[Ici], held: Mapping[int, pb.HeldSocket], move: Move) -> None:
    """Send *icis*; waits while the link is busy with those before.

    :raises MigrateError: the link is lost, or the destination has failed.
    """
    for some in batches(icis, held):
        move.link.send(some, timeout_s=move.timeout_s)


def batches(icis: Iterable[Ici], held: Mapping[int, pb.HeldSocket]) -> Iterator[Connections]:
    """Messages that say *icis*, in their order, as large as a message may be.

    A record that is larger than that is cut, and goes on in the next ones.

    :raises CodecError: a value that does not fit the format.
    """
    records, sockets = bytearray(), list[pb.HeldSocket]()
    for ici in icis:
        record = codec.dumps(ici)
        if records and len(records) + len(record) > CHUNK_BYTES:
            yield Connections(bytes(records), sockets)
            records, sockets = bytearray(), []
        records += record
        sockets.append(held[ici.tag])
        while len(records) > CHUNK_BYTES:
            yield Connections(bytes(records[:CHUNK_BYTES]), sockets)
            del records[:CHUNK_BYTES]
            sockets = []
    if records:
        yield Connections(bytes(records), sockets)
