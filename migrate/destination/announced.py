"""Whether what the origin sends is what it announced: the tree by its root, connections by their addresses. Pure.

The destination prepares for certain processes and addresses, and its rollback is about these. Images and ICIs that
come later are bytes from another host: they may say that they are somebody else's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from migrate.errors import ImageError, ProtocolError
from migrate.pb.session_pb2 import Prepare, TaskState
from tcpcp.record.ici import Ici

_SHOWN = 5


def tasks(prepare: Prepare, frozen: Iterable[TaskState]) -> None:
    """Make sure that the tree that was frozen has the announced root.

    :raises ProtocolError: it has another one.
    """
    if prepare.pids[0] not in {one.pid for one in frozen}:
        raise _wrong(f"a Restore without process {prepare.pids[0]}, which was announced")


def root(prepare: Prepare, built: int | None) -> None:
    """Make sure that CRIU has built the announced tree, before its numbers are taken for ours.

    :param built: the PID of its root, as CRIU says it.
    :raises ProtocolError: it has built another one.
    """
    if built not in (None, prepare.pids[0]):
        raise _wrong(f"images of process {built}, where {prepare.pids[0]} was announced")


def addresses(prepare: Prepare, icis: Iterable[Ici]) -> None:
    """Make sure that each connection is on an address that moves with the process, or on a loopback one.

    :raises ImageError: one is on another address: of this host, or of nobody.
    """
    ours = {ipaddress.ip_address(one.address) for one in prepare.addresses}
    others = (one.local.ip for one in icis if one.local.ip not in ours and not one.local.ip.is_loopback)
    if wrong := sorted(set(map(str, others))):
        raise ImageError(
            f"connections on {', '.join(wrong[:_SHOWN])}, which does not move with the process",
            hint="If the process has opened them since the check, try again: then it is told before the freeze.",
        )


def _wrong(text: str) -> ProtocolError:
    return ProtocolError(f"received {text}")
