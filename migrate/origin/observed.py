"""What was seen of the process in the end, on the host that the report names; a report states no intention."""

from __future__ import annotations

from dataclasses import dataclass, field

from migrate import host_name, limits
from migrate.errors import Ended
from migrate.pb.session_pb2 import Activated, TaskState
from migrate.processes.chosen import Subject
from migrate.processes.watched import DEAD, STOPPED
from migrate.report.report import Outcome, Report


@dataclass(slots=True)
class Seen:
    """What is known of the tree that was moved.

    :ivar before: its tasks before the freeze, the root first.
    :ivar after: what the destination saw of them when they ran, if it has said so.
    :ivar last: what it saw of them when all was cleaned up, likewise.
    :ivar notes: what the destination has said is different for the process there.
    """

    before: list[TaskState] = field(default_factory=list)
    after: Activated | None = None
    last: list[TaskState] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


#: So many tasks are named; the others are counted.
_NAMED = 5


def on_origin(report: Report, subject: Subject) -> None:
    """After everything, when it should run here: say whether it does.

    One that was dead when it was asked for has not ended meanwhile: that is refused.
    """
    if report.outcome not in (Outcome.UNTOUCHED, Outcome.ROLLED_BACK) or subject.was_dead:
        return
    signalled = report.error is not None and report.error.kind == "Signalled"
    here = host_name.here(other=report.host)
    state = "" if signalled and subject.ended(within_s=limits.SIGNALLED_S) else subject.state()
    if not state:
        report.outcome = Outcome.ENDED
        report.where = f"PID {subject.pid} has ended on {here}"
        error = Ended(f"process {subject.pid} has ended")
        error.stamp("check", "origin")
        report.fail(error)
    elif state in STOPPED:
        report.where = f"is stopped on {here} as PID {subject.pid}"
    else:
        report.where = f"runs on {here} as PID {subject.pid}"


def on_destination(report: Report, host: str, seen: Seen) -> None:
    """After it was moved: say what the destination saw of it there."""
    report.outcome = Outcome.MOVED
    report.where = f"runs on {host} as PID {report.destination_pid}"
    if seen.after is not None:
        report.notes += seen.after.problems
        _compare(report, host, seen.before, seen.last or list(seen.after.tasks))
    report.notes += seen.notes


def not_since(report: Report, host: str) -> None:
    """The destination has said that it runs there, and could not be asked again: a link was lost meanwhile."""
    if report.outcome is Outcome.MOVED:
        report.where = f"ran on {host} as PID {report.destination_pid} when it was last seen there"


def ended_there(report: Report, host: str) -> None:
    """It ran on the destination, and has ended."""
    report.outcome = Outcome.ENDED
    report.where = f"was moved to {host} and has ended there"
    hint = "Look for its last words in its log there, and for an out-of-memory kill (dmesg)."
    error = Ended("the process has ended since it runs there", hint=hint)
    error.stamp("", "destination")
    report.fail(error)


def _compare(report: Report, host: str, before: list[TaskState], after: list[TaskState]) -> None:
    now = {task.pid: task.state for task in after}
    root, *others = before
    state = now.get(root.pid, "")
    if not state or state in DEAD:
        ended_there(report, host)
    elif state in STOPPED and root.state not in STOPPED:
        report.notes.append(
            f"it was stopped there by a signal; to let it run: kill -CONT {report.destination_pid}"
        )
    elif state in STOPPED:
        report.where = f"is stopped, as it was before, on {host} as PID {report.destination_pid}"
    lost = [one.pid for one in others if one.state not in DEAD and now.get(one.pid, "") in ("", *DEAD)]
    if lost:
        named = ", ".join(map(str, lost[:_NAMED])) + (", ..." if len(lost) > _NAMED else "")
        have = "has" if len(lost) == 1 else "have"
        report.notes.append(f"{len(lost)} of its child processes {have} ended on {host} since: {named}")
