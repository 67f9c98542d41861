"""Keeps connection tracking away from what is fed, where no filter of ours does so already.

What wakes a connection lies beyond every window (`waking`), which connection tracking calls invalid, and a firewall
drops. The filters that isolate have a rule against that; but who drives CRIU has removed his by then, and others
isolate in another way. So there is a table for as long as something is fed, with that rule alone.

Source: net/netfilter/nf_conntrack_proto_tcp.c tcp_in_window(); net/netfilter/nft_ct.c nft_notrack_eval().
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator

from tcpcp.endpoint.isolation import MARK, PREFIX
from tcpcp.errors import IsolationError, TcpcpError
from tcpcp.kernel import nft_rules, tracking
from tcpcp.kernel.netfilter import Netlink
from tcpcp.kernel.nft_elements import Message

_CHAIN, _BEFORE_TRACKING = "output", -300


@contextlib.contextmanager
def while_fed(netlink: Netlink | None = None) -> Iterator[bool]:
    """A ``with`` block in which connection tracking does not see what the calling thread's namespace is fed.

    :param netlink: of that namespace; None: one is made, and closed, which may take 30 ms
        (:func:`tcpcp.kernel.tracking.introduce` says why).
    :return: whether that is so. Not where the kernel refuses the table: without CAP_NET_ADMIN, without nf_tables.
    """
    if not tracking.is_there():
        yield True
        return
    with contextlib.ExitStack() as stack:
        hidden = False
        with contextlib.suppress(TcpcpError):
            netlink = netlink or stack.enter_context(contextlib.closing(Netlink()))
            stack.callback(_remove, netlink, _make(netlink))
            hidden = True
        yield hidden


def _make(netlink: Netlink) -> str:
    """A table, its name. It goes with *netlink*, should we be killed; before Linux 5.12 it would stay."""
    name = f"{PREFIX}fed-{os.urandom(6).hex()}"
    try:
        netlink.change(_messages(name, nft_rules.OWNER))
    except IsolationError as exc:
        if exc.errno not in nft_rules.NO_SUCH_FLAG:
            raise
        netlink.change(_messages(name, 0))
    return name


def _messages(name: str, flags: int) -> list[Message]:
    marked = nft_rules.is_equal(nft_rules.MARK, struct.pack("=I", MARK))
    return [
        nft_rules.table(name, flags),
        nft_rules.chain(name, _CHAIN, nft_rules.LOCAL_OUT, _BEFORE_TRACKING),
        nft_rules.rule(name, _CHAIN, marked, nft_rules.not_tracked()),
    ]


def _remove(netlink: Netlink, name: str) -> None:
    with contextlib.suppress(TcpcpError):
        netlink.change([nft_rules.deletion(name)])
