"""The process that the user has named by its program or its port."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from migrate.errors import Reason, Refused
from migrate.inventory import holders, named, proc
from migrate.request import Request

#: So many are told where several fit.
_MOST = 10


def resolved(request: Request) -> Request:
    """*request* with the PID of the process that it names.

    :raises Refused: there is none, or more than one.
    """
    if not (word := request.named.process):
        return request
    port = word.removeprefix(":")
    by_port = port != word
    found = named.by_port(int(port)) if by_port else named.by_program(word)
    if len(found) == 1:
        return dataclasses.replace(request, pid=found[0])
    if not found:
        text = f"nobody listens at TCP port {port}" if by_port else f"no process is called {word}"
        raise _refused("no-process", text, "Look for it (ps, ss -ltnp), and name it by its PID.")
    what = f"listen at TCP port {port}" if by_port else f"are called {word}"
    told = [*_told(found[:_MOST]), *([f"{len(found) - _MOST} more"] if len(found) > _MOST else [])]
    raise _refused(
        "several-processes", f"{len(found)} processes {what}: {', '.join(told)}", "Name one by its PID."
    )


def _told(pids: list[int]) -> Iterator[str]:
    for pid in pids:
        with contextlib.suppress(proc.Gone):
            yield holders.named(pid)


def _refused(code: str, text: str, remedy: str) -> Refused:
    return Refused([Reason(code, "origin", text, remedy)])
