"""The origin's part: drives the machine of :mod:`migrate.machine` from the first check to the last clean-up.

:func:`run` is the whole of it. A :class:`Driver` has one method for each step of the table, named as the
step's action. What a step would need to be undone is in the journal before it is done; a failure before
COMMIT is undone by the same code that a guardian would use (:mod:`migrate.recovery.undo`).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import time
from collections.abc import Generator
from concurrent import futures

from migrate import interrupt, limits, place, switch
from migrate.criu.worker import Options, Stage, Worker
from migrate.errors import CriuError, MigrateError
from migrate.files.images import Sender
from migrate.gap import capture
from migrate.gap.file import GapFile
from migrate.gap.lease import Lease
from migrate.inventory import translated, untold
from migrate.journal import journal
from migrate.link import message_checks
from migrate.machine import Machine, State, Step
from migrate.memory.page_server import PageServer
from migrate.memory.rounds import Ahead
from migrate.origin import accept_queues, observed, unowned
from migrate.origin.ending import Ending
from migrate.origin.frozen import Frozen
from migrate.origin.patience import BUILDING, Patience
from migrate.origin.session import Plan, Session, restore_message
from migrate.pb import session_pb2 as pb
from migrate.processes import identity, surroundings
from migrate.processes.chosen import Subject, stopped
from migrate.recovery import guardian
from migrate.recovery.hold import Hold
from migrate.report.observer import Observer
from migrate.report.report import Outcome, Report, Span, Timeline
from migrate.request import Request
from tcpcp.criu import completion, stages
from tcpcp.endpoint.isolation import Isolation
from tcpcp.errors import TcpcpError
from tcpcp.record import codec

#: How often a freeze is tried when connections slip into an accept queue.
FREEZES = 5


def run(request: Request, observer: Observer) -> Report:
    """Do what *request* asks and report; raises nothing but bugs, and those only before the freeze."""
    timeline = Timeline(time.monotonic)
    report = Report(outcome=Outcome.UNTOUCHED, pid=request.pid, host=request.host)
    try:
        with Subject(request.pid) as subject:
            report.where = f"is on origin as PID {request.pid}"
            _move(subject, request, observer, timeline, report)
            observed.on_origin(report, subject)
    except (MigrateError, TcpcpError, OSError) as error:
        report.fail(error)
    report.take(timeline)
    observer.finished(report)
    return report


def _move(subject: Subject, request: Request, observer: Observer, timeline: Timeline, report: Report) -> None:
    """Check, and go on if nothing is in the way. How a failure ended is in *report*."""
    try:
        with accept_queues.pid_lock(request.pid), Session(request, observer, timeline) as session:
            subject.require("check")
            plan = session.check()
            report.notes += plan.notes
            if request.check:
                addresses = (one.ip for one in plan.addresses)
                report.notes += unowned.notes(lambda: subject.tasks("check"), addresses)
            else:
                Driver(request, observer, timeline, session, plan, report, subject).drive()
    except (MigrateError, TcpcpError, OSError) as error:
        report.fail(error)


def _filter_s(request: Request) -> int:
    """How long the filter holds when nobody renews it: longer than the work, by much."""
    return int(request.max_gap_s + limits.FILTER_MARGIN_S)


class Driver:
    """Takes the steps of one migration that has passed its checks.

    :param plan: what the checks found out and the steps need.
    :param report: filled in as things happen.
    :param subject: the process that was checked, and no other.
    """

    def __init__(
        self,
        request: Request,
        observer: Observer,
        timeline: Timeline,
        session: Session,
        plan: Plan,
        report: Report,
        subject: Subject,
    ) -> None:
        self._subject = subject
        self._frozen: Frozen | None = None
        self._request, self._observer, self._timeline = request, observer, timeline
        self._session, self._link, self._plan, self._report = session, session.link, plan, report
        self._timeout_s = request.timeout_s
        self._watch, self._patience = session.watch, Patience(request.timeout_s, request.max_gap_s)
        for look in (self._none_killed, self._patience.check, self._link.check):
            self._watch.also(look)
        self._machine = Machine()
        self._migration_id = session.migration_id
        self._ending = Ending(request, report, self._link, self._machine, self._let_go)
        self._extract: stages.Extract | None = None
        self._stages: Generator[Stage, bool | None, None] | None = None
        self._worker: Worker | None = None
        self._sender: Sender | None = None
        self._guardian: guardian.Guardian | None = None
        self._journal: journal.Journal | None = None
        self._hold: Hold | None = None
        self._forwarder: capture.Forwarder | None = None

    def drive(self) -> None:
        """Take all steps; on a failure undo what can be undone. The report says how it ended."""
        try:
            self._prepare()
            with interrupt.at_checkpoints():
                while (step := self._machine.step) is not None:
                    self._take(step)
            with interrupt.held():
                self._ending.moved()
        except BaseException as error:  # a bug, too, must not leave a frozen process
            self._watch.end()
            with interrupt.held(), self._timeline.phase("settle"):
                self._ending.failed(error)
            self._timeline.hear(getattr(error, "phases", ()), self._link.clocks.offset)
        finally:
            self._put_away()

    def _take(self, step: Step) -> None:
        self._stop_if_asked()
        if not self._machine.given_away:
            self._watch()
            self._patience.begin_step(step.action)
        self._machine.begin()
        self._observer.phase_begin(step.action, "origin")
        no_way_back = self._machine.given_away or step.action == "commit"
        with self._timeline.phase(step.action), interrupt.held() if no_way_back else contextlib.nullcontext():
            getattr(self, step.action)()
        self._machine.done(step)
        self._observer.phase_end(step.action)

    def _none_killed(self) -> None:
        """Nobody has killed a task of the frozen tree."""
        if self._frozen is not None and self._machine.step is not None:
            self._frozen.require(self._machine.step.action)

    # --- before anything is frozen -----------------------------------------------------------------------

    def _prepare(self) -> None:
        """Everything that can be done before the freeze, on both hosts."""
        self._observer.phase_begin("prepare", "origin")
        with self._timeline.phase("prepare"):
            self._link.send(self._plan.prepare)
            pid, host = self._request.pid, self._request.host
            self._journal = journal.Journal(
                self._migration_id, role="origin", pid=pid, other_host=host, reach=self._session.reach
            )
            self._ending.journal = self._journal
            self._hold = Hold(self._journal)
            self._capture = capture.Capture(ipaddress.ip_address(one.ip) for one in self._plan.addresses)
            kept = GapFile(self._journal.directory)
            self._forwarder = capture.Forwarder(self._capture, self._link.send, kept.add)
            self._ending.caught = self._forwarder.give_back
            self._guardian = guardian.Guardian(self._journal.directory, "origin", self._capture.descriptors())
            self._ending.guardian = self._guardian
            self._make_images()
            self._make_worker()
            self._switch = switch.make(
                self._request.switch, "origin", self._migration_id, self._plan.addresses
            )
            self._switch.choose()
            self._isolation = Isolation(self._migration_id, timeout_s=_filter_s(self._request))
            self._journal.did("isolation", name=self._migration_id)
            self._isolation.prepare()
            self._lease = Lease(self._isolation)
            self._watch.also(self._lease.renew)
            stages.prepare()
            self._session.files.copy(self._plan.copy)
            self._link.flush(timeout_s=self._timeout_s)
            self._link.expect(pb.Prepared, timeout_s=self._timeout_s)
            self._guardian.wait_ready()
            self._unowned = unowned.Watcher(
                lambda: self._subject.tasks("freeze"), (one.ip for one in self._plan.addresses), self._watch
            )
            self._unowned.wait(self._observer.note)
        self._observer.phase_end("prepare")
        self._send_ahead()

    def _send_ahead(self) -> None:
        """Send the memory while the process runs, so that only what changes has to travel while it does not."""
        assert self._sender is not None
        self._observer.phase_begin("ahead", "origin")
        with self._timeline.phase("ahead"):
            self._sender.start_ahead()
            self._ahead.run(self._drain)
        self._observer.phase_end("ahead")

    def _drain(self) -> None:
        """Wait until what was read ahead has left."""
        assert self._sender is not None
        self._sender.drain(limits.AHEAD_S)
        self._link.flush(timeout_s=limits.AHEAD_S)
        self._observer.progress(self._sender.sent_bytes, None)
        interrupt.check()

    def _make_worker(self) -> None:
        """Start a CRIU that sends the pages to us."""
        self._pages = PageServer(self._images, self._ahead)
        self._page_fd = self._pages.client.fileno()
        self._worker = Worker(inherit=[self._page_fd], heed=self._watch)
        self._pages.start()

    def _make_images(self) -> None:
        assert self._journal is not None
        self._journal.did("images", path=str(place.image_root() / f"migrate-{self._migration_id}"))
        self._images = place.images(self._migration_id)
        self._sender = Sender(self._images, self._send_chunk, self._watch)
        self._watch.also(self._sender.check)  # it may be the one that is told of a failure
        self._ahead = Ahead(
            self._images,
            lambda: self._subject.tasks("ahead"),
            deadline=time.monotonic() + limits.AHEAD_READ_S,
        )

    def _send_chunk(self, chunk: pb.FileChunk) -> None:
        self._link.send(chunk, kind="image", timeout_s=self._timeout_s)

    # --- the steps ---------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Hold new connections, let the accept queues drain, freeze; again if one slipped in."""
        assert self._hold is not None
        self._still_guarded()
        self._patience.begin_gap()
        for _ in range(FREEZES):
            self._report.notes += self._hold.prepare(lambda: self._subject.tasks("freeze"))
            tasks = self._subject.tasks("freeze")
            until, watch = self._patience.until, self._watch
            listeners = accept_queues.drain(self._lease, tasks, until, self._capture.syns, watch)
            self._unowned.wait_for_none(until)
            were_stopped = stopped(self._subject.tasks("freeze"))
            self._freeze_once()
            self._frozen = Frozen(self._subject.frozen("freeze"), were_stopped)
            if not stages.accept_queues(listeners) and self._unowned.none_left():
                return
            self._thaw()
        raise CriuError(
            "connections keep arriving in an accept queue that the process does not empty, or being closed with"
            " data that is still to be sent",
            phase="freeze",
            hint="Try again when the server is less busy, or look whether it accepts at all.",
        )

    def _freeze_once(self) -> None:
        """Have CRIU freeze the tree; it then waits for an answer with every task stopped."""
        assert self._journal is not None and self._worker is not None
        if self._stages is not None:
            self._make_worker()
        self._journal.did("criu", pid=self._worker.pid, start=self._worker.start)
        options = Options(
            self._images,
            "dump.log",
            shell_job=self._request.shell_job,
            timeout_s=max(1, int(self._patience.left_s)),
            page_server_fd=self._page_fd,
        )
        self._stages = self._worker.dump(self._request.pid, options)
        for stage in self._stages:
            if stage.name == "pre-dump":
                self._timeline.start(Span.FROZEN)
            elif stage.name == "query-ext-files":
                return
        raise CriuError("CRIU did not freeze the process", phase="freeze")

    def _thaw(self) -> None:
        """Let the tree run again: CRIU sees its answer missing. It is asked for nothing any more."""
        if self._frozen is not None:
            self._frozen.close()
            self._frozen = None
        if self._stages is not None:
            self._stages.close()
        if self._worker is not None:
            self._pages.close()
            self._worker.close()
        self._timeline.stop(Span.FROZEN)

    def dump(self) -> None:
        """Have CRIU write the images, sent as they grow; then make the freeze outlive CRIU.

        Meanwhile look at the connections, on another processor if there is one.
        """
        assert self._stages is not None and self._sender is not None and self._journal is not None
        assert self._frozen is not None and self._hold is not None and self._worker is not None
        self._tasks = self._frozen.tasks
        self._sender.start()
        with futures.ThreadPoolExecutor(1) as beside:
            looked = beside.submit(self._look_at_connections)
            for stage in self._stages:
                if stage.name == "post-dump":
                    break
            else:
                raise CriuError("CRIU ended before its dump was used", phase="dump")
            self._pages.finish(self._timeout_s, self._watch)
            looked.result()
        stopping = self._frozen.running
        self._journal.did("stop", tasks=stopping)
        for one in stopping:
            # Pending while CRIU holds the task: should CRIU die, it stops instead of running on.
            identity.send(one, signal.SIGSTOP)
        self._hold.keep(self._tasks, stopping, self._worker)
        self._session.files.settle(pid for pid, _ in self._tasks)

    def _look_at_connections(self) -> None:
        self._extract = stages.Extract.collect(pid for pid, _ in self._tasks)
        self._extract.prepare()
        self._surroundings = surroundings.read(pid for pid, _ in self._tasks)
        translated.require_none(self._extract.flows, self._plan.process.sockets)
        untold.require_none(self._extract.connections, self._extract.zerocopy())

    def isolate(self) -> None:
        """Cut all connections off in one batch and read them."""
        assert self._journal is not None and self._extract is not None
        self._journal.did("repair", tasks=self._tasks, reuse=self._extract.reusing())
        self._capture.everything()
        self._capture.only(self._extract.flows, self._extract.listening)
        self._timeline.start(Span.ISOLATED)
        self._lease.hold(self._extract.uncovered(), self._extract.listening)
        image = self._images / completion.ICI_IMAGE
        with image.open("wb") as file:
            for icis in self._extract.get():
                file.write(b"".join(map(codec.dumps, icis)))
                file.flush()  # they are sent, and the destination is at work on them, while we read others
                self._report.connections += len(icis)
                self._watch()

    def stream(self) -> None:
        """Send what is left of the images."""
        assert self._sender is not None and self._extract is not None
        self._manifest = self._sender.finish(self._migration_id)
        self._link.flush(timeout_s=self._timeout_s)
        self._report.image_bytes = self._sender.sent_bytes
        self._observer.progress(self._sender.sent_bytes, self._sender.sent_bytes)

    def restore(self) -> None:
        """Have the destination build the tree; meanwhile it gets what arrives here for the connections."""
        assert self._extract is not None and self._forwarder is not None and self._frozen is not None
        self._ending.before = self._frozen.states()
        most_s = self._patience.left_s * BUILDING
        message = restore_message(self._manifest, self._extract, self._ending.before, most_s)
        message.surroundings.extend(self._surroundings)
        message.renamed.update(self._session.files.renamed)
        self._link.send(message)
        self._forwarder.start()
        restored = self._link.expect(pb.Restored, timeout_s=self._timeout_s)
        self._report.destination_pid = message_checks.destination_pid(restored, self._plan.prepare)
        self._timeline.hear(restored.phases, self._link.clocks.offset)
        self._ending.notes = list(restored.notes)

    def switch(self) -> None:
        """Withdraw here, then have the destination answer: never both."""
        assert self._journal is not None
        self._journal.did("switch", details=self._switch.details())
        self._switch.switch()
        self._link.send(pb.Switch())
        self._switch.verify()  # a second look, while the destination is at work
        self._link.expect(pb.Switched, timeout_s=self._timeout_s)

    def commit(self) -> None:
        """Give the process away, and with it all that has arrived for it here up to now."""
        assert self._journal is not None and self._forwarder is not None
        assert self._frozen is not None and self._hold is not None
        self._forwarder.catch_up()
        self._patience.check()
        self._still_guarded()
        self._frozen.look("commit", self._images)
        self._hold.check()
        self._lease.keep()
        self._watch.end()
        self._journal.state(State.COMMITTED.value, destination_pid=self._report.destination_pid)
        self._machine.give_away()
        try:
            self._link.send(pb.Commit())
        except MigrateError:  # the link was lost before: surely nothing was sent
            self._machine.take_back()
            self._journal.state(State.SWITCHED.value)
            raise

    def activate(self) -> None:
        """Wait until it runs on the destination."""
        activated = self._link.expect(pb.Activated, timeout_s=self._timeout_s)
        message_checks.check(activated)
        self._ending.seen = activated
        self._timeline.stop(Span.ISOLATED)
        self._timeline.stop(Span.FROZEN)
        self._timeline.hear(activated.phases, self._link.clocks.offset)
        pid = message_checks.destination_pid(activated, self._plan.prepare, self._report.destination_pid)
        assert self._journal is not None
        self._journal.state(State.ACTIVATED.value, destination_pid=pid)

    def release(self) -> None:
        """Kill the frozen tree, silently: its sockets are in repair mode, isolated, and have no address."""
        assert self._extract is not None and self._worker is not None and self._forwarder is not None
        assert self._hold is not None
        self._extract.close()
        killed = identity.kill(self._tasks)
        self._hold.let_go()
        self._worker.close()  # before the wait: CRIU traces them
        left = identity.not_gone(killed)
        if left:
            raise MigrateError(f"could not kill {', '.join(str(pid) for pid, _ in left)}", phase="release")
        self._forwarder.linger(limits.LATE_QUIET_S, limits.LATE_S)
        self._forwarder.stop()
        self._report.gap_packets, self._report.gap_dropped = self._forwarder.packets, self._capture.dropped
        self._isolation.release()
        self._link.send(pb.Goodbye())
        self._link.expect(pb.Goodbye, timeout_s=self._timeout_s)

    def _still_guarded(self) -> None:
        assert self._guardian is not None
        self._guardian.check()

    # --- the end -----------------------------------------------------------------------------------------

    def _let_go(self) -> None:
        """Give back what we hold of the tree, so that it can be undone like that of a driver that died."""
        if self._sender is not None:
            self._sender.abandon()
        if self._hold is not None:
            self._hold.let_go()
        self._thaw()
        if self._extract is not None:
            self._extract.close()

    def _put_away(self) -> None:
        """Reap our children; in doubt, the tree stays held, perhaps by a CRIU that waits on without us."""
        self._timeline.stop(Span.ISOLATED)
        self._timeline.stop(Span.FROZEN)
        if self._worker is not None:
            self._pages.close()
            if self._hold is None or not self._hold.leave(self._worker):
                self._worker.close()
        if self._sender is not None:
            self._sender.stop()
        if self._forwarder is not None:
            self._forwarder.stop()
        if self._guardian is not None and self._ending.removed:
            self._guardian.wait_end()

    def _stop_if_asked(self) -> None:
        """For tests: wait in a state to be killed, or for what the machine would notice anyway."""
        if self._request.stop_at != self._machine.state.value:
            return
        self._observer.note(f"stopped at {self._machine.state.value} (driver {os.getpid()})")
        go = place.home(self._migration_id) / "go"
        assert self._worker is not None
        while not go.exists() and not self._link.lost.wait(0.05) and self._worker.process.poll() is None:
            if not self._machine.given_away:
                self._watch()
            elif interrupt.requested():
                return
