"""Several processes to one host, one after the other: all are looked at first, and then each is moved.

None is touched if one of them is refused. One that could not be moved ends it, too, unless the user wants to go on;
one that is in doubt always does. A signal ends the migration that is under way as if it were alone, and no other
begins.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from migrate import interrupt
from migrate.errors import Exit, MigrateError, Reason, Refused
from migrate.inventory import proc
from migrate.origin import named
from migrate.processes.chosen import Subject
from migrate.report.report import Report
from migrate.report.summary import Line
from migrate.request import Named, Request, SeveralRequest
from tcpcp.errors import TcpcpError

#: Checks or moves one, tells the user how it ended, and returns it. Subject: the process, where it is known;
#: Refused: why it is not even looked at.
Call = Callable[[Request, Subject | None, Refused | None], Report]

#: After these nobody should go on without a look.
_STOP_ALWAYS = frozenset({Exit.IN_DOUBT, Exit.BUG})


@dataclass(slots=True)
class _One:
    """One of them; *report* is that of its check, and then of its move, if it came to that."""

    request: Request
    subject: Subject | None
    word: str
    report: Report | None = None
    moved: bool = False

    def line(self) -> Line:
        """Its line of the summary."""
        pid = self.report.pid if self.report is not None else self.request.pid
        failed = self.report is not None and self.report.error is not None
        begun = self.report if self.moved or failed or self.request.check else None
        return Line(self.word or str(pid), pid, self.report.trace.program if self.report else "", begun)


def run(asked: SeveralRequest, call: Call) -> list[Line]:
    """Do what *asked* says; how each ended, in the order in which they were named.

    Signals are held meanwhile but within *call*: what has ended is always told.
    """
    with contextlib.ExitStack() as stack, interrupt.held():
        ours = [_chosen(request, stack) for request in asked.each]
        twice = _named_twice(ours)
        for number, one in enumerate(ours):
            if not _done(one, one.request, call, check=True, refused=twice.get(number)):
                break
        ready = [one for one in ours if one.report is not None and one.report.error is None]
        if not asked.each[0].check and (asked.keep_going or len(ready) == len(ours)):
            _move(ready, call, keep_going=asked.keep_going)
        return [one.line() for one in ours]


def _move(ready: Iterable[_One], call: Call, *, keep_going: bool) -> None:
    for one in ready:
        if not _done(one, one.request, call, check=False) or one.report is None:
            return
        status = one.report.exit_status
        if status in _STOP_ALWAYS or (status is not Exit.MOVED and not keep_going):
            return


def _done(one: _One, request: Request, call: Call, *, check: bool, refused: Refused | None = None) -> bool:
    """Check or move it; whether nobody has stopped us before it ended."""
    if interrupt.requested():
        return False
    with contextlib.suppress(interrupt.Interrupted), interrupt.at_once():
        report = call(dataclasses.replace(request, check=check), one.subject, refused)
        one.report, one.moved = report, not check
        return True
    return False


def _chosen(request: Request, stack: contextlib.ExitStack) -> _One:
    """Its process, which is the same from now on; of one that cannot be found the check says why."""
    word = request.named.process
    with contextlib.suppress(MigrateError, TcpcpError, OSError):
        pid = named.resolved(request).pid
        subject = stack.enter_context(Subject(pid))
        return _One(dataclasses.replace(request, pid=pid, named=Named()), subject, word)
    return _One(request, None, word)


def _named_twice(ours: list[_One]) -> dict[int, Refused]:
    """Which of them move with another one that is named, too."""
    pids = [one.request.pid for one in ours]
    found = {}
    for number, pid in enumerate(pids):
        others = {*pids[:number], *(one for one in pids if one != pid)} - {0}
        if pid and (above := [one for one in proc.ancestors(pid) if one in others]):
            text = f"process {pid} is named twice"
            if above[0] != pid:
                text = f"process {pid} is below process {above[0]}, which is named as well, and moves with it"
            found[number] = Refused([Reason("named-twice", "origin", text, "Name it once.")])
    return found
