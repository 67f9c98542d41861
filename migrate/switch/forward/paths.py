"""The ways that packets of forwarded connections take through the destination: a routing table of each forward.

``local`` to sockets of this host, for what was found to be theirs, and for what this host feeds to them; and by the
origin for all that they send. Source: ip-rule(8); of each rule there is one, and nothing else has this source.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from migrate.errors import SwitchError
from migrate.switch import routes
from migrate.switch.forward.rules import FOUND, FOUND_MASK
from tcpcp.endpoint.isolation import MARK
from tcpcp.kernel import routing

LOOPBACK = 1
#: RT_SCOPE_HOST: an address that is never chosen for what leaves this host.
HOST = 254
_PRIORITY = 4242
_LOCAL, _THROW = "local", "throw"
_LOCAL_TABLE = 255


@contextlib.contextmanager
def asked(what: str) -> Generator[Any, None, None]:
    """A netlink socket; the kernel's refusals to do *what* become SwitchError."""
    try:
        yield _socket_in(Path("/proc/thread-self/ns/net").stat().st_ino)
    except NetlinkError as error:
        refusal = OSError(*error.args[:2])  # its number has a remedy
        raise SwitchError(f"cannot {what}: {error.args[1]}") from refusal
    except OSError as error:
        raise SwitchError(f"cannot {what}: {error.strerror or error}") from error


@functools.lru_cache(1)
def _socket_in(network: int) -> IPRoute:
    """A netlink socket in this thread's network namespace, whose inode is *network*.

    Kept, because to make one takes longer than what it is asked in the moment that counts.
    """
    return IPRoute()


def table(migration_id: str) -> int:
    """Of the forward's own; no other program's has such a number."""
    return 0x4D00_0000 | int(migration_id[:6], 16)


def add(handle: Any, migration_id: str, ip: str, device: str) -> None:
    """For connections on the origin's address *ip*, which come by *device*.

    :raises NetlinkError: the kernel refuses.
    """
    for route in _routes(migration_id, ip, device):
        handle.route("add", **route)
    for rule in _rules(migration_id, ip):
        handle.rule("add", **rule)


def remove(handle: Any, migration_id: str, ip: str) -> None:
    """Undo :func:`add`, as far as it went. :raises NetlinkError, OSError: the kernel refuses."""
    for rule in _rules(migration_id, ip):
        gone(handle.rule, "del", **rule)
    for route in routes.present(socket.AF_INET, [routing.U32.pack(table(migration_id))]):
        if route.table == table(migration_id):
            routes.remove(route)  # what the kernel has learned of one, as a path's MTU, goes with it


def thrown(ip: str) -> dict[str, Any]:
    """A route that has lookups go on as if *ip* were no address of this host."""
    return {"dst": f"{ip}/32", "type": _THROW, "table": _LOCAL_TABLE, "family": socket.AF_INET}


def gone(call: Callable[..., Any], verb: str, **what: Any) -> None:
    """Have something removed; it may not be there any more.

    :raises NetlinkError: the kernel refuses.
    """
    try:
        call(verb, **what)
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL):
            raise


def _routes(migration_id: str, ip: str, device: str) -> list[dict[str, Any]]:
    index = socket.if_nametoindex(device)
    common = {"table": table(migration_id), "family": socket.AF_INET}
    return [
        {"dst": f"{ip}/32", "type": _LOCAL, "scope": HOST, "oif": LOOPBACK, **common},
        {"dst": "default", "gateway": ip, "oif": index, **common},
    ]


def _rules(migration_id: str, ip: str) -> list[dict[str, Any]]:
    common = {"table": table(migration_id), "priority": _PRIORITY, "family": socket.AF_INET}
    to = {"dst": ip, "dst_len": 32}
    return [
        {"fwmark": FOUND, "fwmask": FOUND_MASK, **to, **common},
        {"fwmark": MARK, "fwmask": 0xFFFFFFFF, **to, **common},
        {"src": ip, "src_len": 32, "iifname": "lo", **common},
    ]
