"""The origin's part: takes the steps of :mod:`migrate.steps`, from the first check to the last clean-up.

:func:`run` is the whole of it. Each state is an object, a :class:`migrate.origin.stage.Stage`, which takes the step
that leaves it and returns the next one. What a step would need to be undone is in the journal before it is done; a
failure before COMMIT is undone by the same code that a guardian would use (:mod:`migrate.recovery.undo`).
"""

from __future__ import annotations

import contextlib
import os
import time

from migrate import host_name, interrupt, place, problems
from migrate.errors import MigrateError
from migrate.events import log
from migrate.origin import claim, contained, here, named, observed, united, unowned
from migrate.origin.account import Account
from migrate.origin.chronicle import Chronicle, program
from migrate.origin.move import Move
from migrate.origin.plan import check
from migrate.origin.prepare import prepare
from migrate.origin.session import opened, told_of_refusal
from migrate.origin.stage import Stage
from migrate.processes import network
from migrate.processes.chosen import Subject
from migrate.processes.oci import Container
from migrate.report.observer import Observer
from migrate.report.report import Outcome, Report
from migrate.report.timeline import Span, Timeline
from migrate.request import Request
from migrate.steps import Step
from migrate.units import utc


def run(request: Request, observer: Observer, chosen: Subject | None = None) -> Report:
    """Do what *request* asks and report; raises nothing but bugs, and those only before the freeze.

    :param chosen: its process, where somebody keeps that already; it stays his to close.
    """
    report = Report(outcome=Outcome.UNTOUCHED, pid=request.pid, host=request.host)
    report.trace.id, report.trace.began = place.new_id(), utc(time.time_ns())
    observer.named(report.trace.id)
    report.trace.hosts["origin"] = host_name.here()
    account = Account(report, observer, Timeline(time.monotonic))
    with log.kept(report.trace.id, "origin", wanted=not request.check) as kept:
        report.trace.logs |= {"origin": kept.path} if kept.path else {}
        chronicle = Chronicle(request)
        _run(request, account, chosen)
        with interrupt.held():
            report.times = account.timeline.times()
            if report.outcome in (Outcome.MOVED, Outcome.IN_DOUBT):
                account.came_true()
            chronicle.ended(report)
    report.notes += [kept.problem] if kept.problem else []
    return report


def _run(request: Request, account: Account, chosen: Subject | None) -> None:
    report = account.report
    go = _move if request.host else here.check
    try:
        with problems.step("check", "origin"):
            request, container = contained.resolved(united.resolved(named.resolved(request)))
            report.pid, report.trace.program = request.pid, program(request.pid)
        with problems.step("check", "origin"), _kept(chosen, request.pid) as subject:
            report.where = f"is on {host_name.here(other=request.host)} as PID {request.pid}"
            go(subject, request, account, container)
            observed.on_origin(report, subject)
    except MigrateError as error:
        account.fail(error)


def _kept(chosen: Subject | None, pid: int) -> contextlib.AbstractContextManager[Subject]:
    return Subject(pid) if chosen is None else contextlib.nullcontext(chosen)


def _move(subject: Subject, request: Request, account: Account, container: Container | None) -> None:
    """Check, and go on if nothing is in the way. How a failure ended is in the report."""
    try:
        with (
            problems.step("check", "origin"),
            claim.of_tree(request.pid),
            opened(request, account, container) as session,
            network.stay(container.network if container else ""),
        ):
            with told_of_refusal(session):
                subject.require()
                plan = check(session)
            account.foreseen.extend(plan.notes)
            account.report.trace.addresses = plan.leaving
            account.report.trace.switch = plan.prepare.switch_kind
            if request.check:
                account.came_true()
                account.report.notes += unowned.notes(subject.tasks, plan.leaving)
            else:
                drive(Move.begin(request, subject, session, plan))
    except MigrateError as error:
        account.fail(error)


def drive(move: Move) -> None:
    """Take all steps; on a failure undo what can be undone. The report says how it ended."""
    timeline = move.account.timeline
    with move.ours:
        try:
            prepared = prepare(move)
            stage: Stage = prepared
            with interrupt.at_checkpoints():
                while (step := move.machine.step) is not None:
                    stage = _taken(move, step, stage)
            with interrupt.held():
                prepared.ready.ending.moved()
        except BaseException as error:  # a bug, too, must not leave a frozen process
            move.watch.end()
            log.error(error)
            with interrupt.held(), timeline.phase("settle"), log.phase("settle"):
                move.ends.failed(error)
            if isinstance(error, MigrateError):
                timeline.hear(error.phases, move.link.clocks.offset)
        finally:
            timeline.stop(Span.ISOLATED)
            timeline.stop(Span.FROZEN)


def _taken(move: Move, step: Step, stage: Stage) -> Stage:
    """Take the step *step* of the table, which leaves the state of *stage*."""
    with problems.step(step.action, "origin"):
        _stop_if_asked(move, stage)
        if not move.machine.given_away:
            move.patience.begin_step(step.action)
            move.watch()
        move.machine.begin()
        with move.account.phase(step.action):
            with interrupt.held() if step.gives_away else contextlib.nullcontext():
                after = stage.take()
            move.machine.done(step)
    report = move.account.report
    log.state(
        move.machine.state.value, connections=report.sent.connections, image_bytes=report.sent.image_bytes
    )
    return after


def _stop_if_asked(move: Move, stage: Stage) -> None:
    """For tests: wait in a state to be killed, or for what the machine would notice anyway."""
    if move.request.stop_at != stage.state.value:
        return
    move.patience.held(stage.state.value)
    move.account.observer.note(f"stopped at {stage.state.value} (driver {os.getpid()})")
    go = place.home(move.migration_id) / "go"
    criu = stage.attempt.worker.process
    while not go.exists() and not move.link.lost.wait(0.05) and criu.poll() is None:
        if not move.machine.given_away:
            move.watch()
        elif interrupt.requested():
            return
