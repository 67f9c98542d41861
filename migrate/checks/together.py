"""Reasons that are the same for several processes of a tree, told once. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from migrate.checks.subject import Subject, names
from migrate.errors import Reason

#: So many PIDs of a program, and so many programs, are told, and the others counted.
_MOST = 8
#: Stands for the process; no reason has one.
_HOLE = "\0"
#: As :meth:`migrate.checks.subject.Subject.who` writes it.
_PID = re.compile(r"\(PID (\d{1,10})\)")


def together(reasons: Iterable[Reason], subject: Subject) -> list[Reason]:
    """*reasons*, where those that differ by the process alone have become one that names all of them."""
    kinds: defaultdict[Reason, set[int]] = defaultdict(set)
    for reason in reasons:
        pid, text = _apart(reason.text, subject)
        kinds[Reason(reason.code, reason.role, text, reason.remedy)].add(pid)
    return [
        Reason(
            one.code,
            one.role,
            one.text.replace(_HOLE, _named(pids, subject)),
            one.remedy,
            tuple(sorted(pids - {0})),
        )
        for one, pids in kinds.items()
    ]


def notes(texts: Iterable[str], subject: Subject) -> list[str]:
    """Notes, as :func:`together` does it for reasons."""
    return [one.text for one in together((Reason("", "", text, "") for text in texts), subject)]


def _apart(text: str, subject: Subject) -> tuple[int, str]:
    """The process that *text* names, if it is one of the tree's, and the text with a hole in its place."""
    for number in _PID.findall(text):
        who = subject.who(pid := int(number))
        if who in text:
            return pid, text.replace(who, _HOLE, 1)
    return 0, text


def _named(pids: set[int], subject: Subject) -> str:
    if len(pids) == 1:
        return subject.who(*pids)
    programs: defaultdict[str, list[str]] = defaultdict(list)
    for task in subject.process.tasks:
        if task.pid in pids:
            programs[task.comm].append(str(task.pid))
    told = [f"{name} (PID{'s' * (len(some) > 1)} {names(some, _MOST)})" for name, some in programs.items()]
    return f"each of {names(told, _MOST)}"
