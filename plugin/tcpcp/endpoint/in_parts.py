"""A change of the packet filter that is more than one batch may have, carried out in several.

Only in a user namespace other than the first one is there such a limit, net.core.wmem_max (`netfilter.make_room`).
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

from tcpcp.endpoint.isolation import Flow
from tcpcp.errors import IsolationError

Table = TypeVar("Table")
Change = Callable[[Table, Sequence[Flow]], None]


def in_parts(change: Change[Table]) -> Change[Table]:
    """Have a method that changes all flows or none do it for halves of them, where they are too many at once."""

    @functools.wraps(change)
    def changed(table: Table, flows: Sequence[Flow]) -> None:
        if _is_too_much(change, table, flows):
            _halve(changed, table, flows)

    return changed


def in_parts_after(first: Change[Table]) -> Callable[[Change[Table]], Change[Table]]:
    """Likewise, with *first* done before any half: it fails where the change would, so that none is then."""

    def decorate(change: Change[Table]) -> Change[Table]:
        @functools.wraps(change)
        def changed(table: Table, flows: Sequence[Flow]) -> None:
            if _is_too_much(change, table, flows):
                first(table, flows)
                _halve(in_parts(change), table, flows)

        return changed

    return decorate


def _is_too_much(change: Change[Table], table: Table, flows: Sequence[Flow]) -> bool:
    """Else it is done, or has failed."""
    try:
        change(table, flows)
    except IsolationError as exc:
        if exc.errno != errno.EMSGSIZE or len(flows) < 2:
            raise
        return True
    return False


def _halve(change: Change[Table], table: Table, flows: Sequence[Flow]) -> None:
    middle = len(flows) // 2
    for half in (flows[:middle], flows[middle:]):
        change(table, half)
