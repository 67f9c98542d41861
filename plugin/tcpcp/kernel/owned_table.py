"""Tables of packet filters that belong to the netlink socket which made them: how they are made, and swept.

``nft flush ruleset`` leaves such a table alone, and it outlives its process; what it holds are elements with
timeouts of their own. So what a program that has ended left is an empty table in the end, which drops nothing.

Source: net/netfilter/nf_tables_api.c nft_table_owner(); the flags owner and persist are there since Linux 6.9.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence

from tcpcp.errors import IsolationError
from tcpcp.kernel import nft_rules
from tcpcp.kernel.netfilter import Netlink, Unanswered
from tcpcp.kernel.nft_elements import Message


def make(netlink: Netlink, name: str, messages: Callable[[int], list[Message]]) -> None:
    """Make the table *name*, whole or not at all; on kernels before 6.9 it is nobody's.

    :param messages: given the table's flags, what makes it and what is in it.
    :raises IsolationError, PermissionDenied: it is not there.
    """
    try:
        _make(netlink, name, messages(nft_rules.OWNER | nft_rules.PERSIST))
    except IsolationError as exc:
        if exc.errno not in nft_rules.NO_SUCH_FLAG:
            raise
        _make(netlink, name, messages(0))


def _make(netlink: Netlink, name: str, messages: list[Message]) -> None:
    try:
        netlink.change(messages)
    except Unanswered:
        with contextlib.suppress(IsolationError):
            netlink.change([nft_rules.deletion(name)])
        netlink.change(messages)


def sweep(netlink: Netlink, tables: Iterable[nft_rules.Table], sets: Sequence[str]) -> list[str]:
    """Delete those of *tables* whose programs have ended, once nothing of them is in force.

    :param sets: what there may be in one.
    :return: the names of those that were deleted.
    """
    deleted = []
    for table in tables:
        if table.orphaned and not any(netlink.elements(table.name, one) for one in sets):
            with contextlib.suppress(IsolationError):  # somebody else was faster
                netlink.change([nft_rules.deletion(table.name)])
                deleted.append(table.name)
    return deleted
