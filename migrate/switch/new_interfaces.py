"""What is new on this host's bridges and has one of these hardware addresses is heard by nobody.

An engine brings a container's address up before anybody could reach into its network to mute it, with the same
hardware address as at the origin: a bridge would learn that it is here. So the frames are dropped where they come
in, before the bridge learns. One table ``bridge migrate-ID``, in the network namespace of the calling thread.

Source: nft(8); net/bridge/br_input.c br_handle_frame_finish(), which is after the hook prerouting.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence

from migrate.errors import SwitchError
from tcpcp.errors import IsolationError
from tcpcp.kernel import nft

_HARDWARE = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_ID = re.compile(r"[0-9a-f]+")


def mute(migration_id: str, hardware: Sequence[str]) -> None:
    """From now on. :raises SwitchError: this kernel cannot, or one of *hardware* is no address."""
    if bad := [one for one in hardware if not _HARDWARE.fullmatch(one.lower())]:
        raise SwitchError(f"not a hardware address: {bad[0][:40]!r}")
    table = _table(migration_id)
    known = ", ".join(str(index) for index, _ in socket.if_nameindex())
    own = ", ".join(one.lower() for one in hardware)
    _run(
        f"""
        add table {table}
        add set {table} known {{ type iface_index; elements = {{ {known} }}; }}
        add chain {table} arriving {{ type filter hook prerouting priority -300; policy accept; }}
        add rule {table} arriving meta iif != @known ether saddr {{ {own} }} drop
        """
    )


def speak(migration_id: str) -> None:
    """No longer. :raises SwitchError: the kernel refuses."""
    table = _table(migration_id)
    _run(f"add table {table}\ndelete table {table}")


def _table(migration_id: str) -> str:
    if not _ID.fullmatch(migration_id):
        raise SwitchError("not a migration's id")
    return f"bridge migrate-{migration_id}"


def _run(script: str) -> None:
    try:
        nft.run(script)
    except IsolationError as error:
        raise SwitchError(f"the kernel's packet filter refused: {error}") from error
