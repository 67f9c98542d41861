"""Everything that can be done before the freeze, on both hosts: from a plan to all that the steps need."""

from __future__ import annotations

import functools
import ipaddress
import time
from contextlib import ExitStack
from dataclasses import dataclass

from migrate import environment, interrupt, limits, memory, place, switch
from migrate.events import log
from migrate.files.images import Sender
from migrate.gap import capture
from migrate.gap.file import GapFile
from migrate.gap.lease import Lease
from migrate.inventory import epolls
from migrate.journal.journal import Journal
from migrate.link import payloads
from migrate.origin import contained, sent_along, united
from migrate.origin.attempt import Attempt
from migrate.origin.ending import Ending
from migrate.origin.freeze import Prepared
from migrate.origin.move import Move
from migrate.origin.ready import Images, Packets, Ready
from migrate.origin.rules import Rules
from migrate.origin.unowned import Watcher
from migrate.pb import session_pb2 as pb
from migrate.processes import slices
from migrate.processes.podman import Podman
from migrate.recovery import entries
from migrate.recovery.guardian import Guardian
from migrate.recovery.hold import Hold
from tcpcp.criu import stages
from tcpcp.endpoint.isolation import Isolation


def prepare(move: Move) -> Prepared:
    """Make all ready on both hosts, and send the memory ahead while the process runs.

    :raises MigrateError, TcpcpError, OSError: the journal says what is to be undone, *move* what to be given back.
    """
    _send_image(move)
    move.machine.make_ready("prepare")
    with move.account.phase("prepare"):
        prepared = _prepare(move)
    move.machine.make_ready("ahead")
    with move.account.phase("ahead"):
        _send_ahead(move, prepared.ready.images)
        prepared.ready.switch.choose()  # what is there to be had again may have changed since the check
    environment.settled()
    return prepared


def _send_image(move: Move) -> None:
    """That of a container, if the destination has it not. Nothing is begun there, and nothing has to be undone."""
    container = move.plan.container
    if move.plan.sends_image and isinstance(container, Podman):
        move.machine.make_ready("load")
        with move.account.phase("load"):
            sent_along.image(container, sent_along.Way(move.link, move.timeout_s), move.watch)


def _prepare(move: Move) -> Prepared:
    move.link.send(move.plan.prepare)
    begun = _begun(move)
    journal, guardian = begun.journal, begun.guardian
    found = move.plan.container
    if isinstance(found, Podman):
        journal.did(entries.AtPodman(found.id, found.by, found.bundle, *found.monitor))
    elif found:
        journal.did(entries.Container(found.runtime, found.name, found.bundle))
    united.hold(move.plan.runtime, journal, move.request.host)
    hold = Hold(journal)
    move.held.kept.callback(hold.let_go)
    images = _images(move, journal)
    guardian.hold_images(images.directory)
    attempt = Attempt(move, images, hold, epolls_known=epolls.say_all(move.subject.tasks()))
    switching = switch.make(move.plan.switch, "origin", move.migration_id, move.plan.addresses)
    isolation = _isolation(move, journal)
    packets = Packets(begun.caught, begun.forwarder, isolation, Lease(isolation))
    move.watch.also(packets.lease.renew)
    stages.prepare()
    slices.usual()  # takes a thread, which nobody has to wait for later
    move.session.files.copy(move.plan.copy)
    move.link.flush(timeout_s=move.timeout_s)
    move.link.expect(pb.Prepared, timeout_s=move.timeout_s)
    move.session.files.arrived(awaited=bool(move.plan.process.unit.name))
    guardian.wait_ready()
    unowned = Watcher(move.subject.tasks, move.plan.leaving, move.watch)
    unowned.wait(move.account.note)
    ready = Ready(move, journal, guardian, begun.ending, hold, packets, images, switching)
    return Prepared(ready, attempt, unowned)


@dataclass(frozen=True, slots=True)
class _Begun:
    """What whoever undoes needs, us or the guardian; and how it ends from now on."""

    journal: Journal
    caught: capture.Capture
    forwarder: capture.Forwarder
    guardian: Guardian
    ending: Ending


def _begun(move: Move) -> _Begun:
    """All of it or, after an error, nothing: there is nothing to be undone yet."""
    journal = _journal(move)
    with ExitStack() as nothing_done:
        nothing_done.callback(journal.remove)
        caught, forwarder = _capture(move, journal)
        nothing_done.callback(forwarder.stop)
        guardian = Guardian(journal.directory, caught.descriptors())
        nothing_done.pop_all()
    ending = Ending(move, journal, guardian, forwarder.give_back)
    move.ours.callback(ending.reap)  # the guardian ends while all that is had from here on is given back
    move.ours.callback(forwarder.stop)
    move.ends.from_now_on(ending)
    return _Begun(journal, caught, forwarder, guardian, ending)


def _journal(move: Move) -> Journal:
    pid, host, reach = move.request.pid, move.request.host, move.session.reach
    return Journal(
        move.migration_id,
        role="origin",
        pid=pid,
        other_host=host,
        reach=reach,
        may=Rules(move.machine).may_write,
        network=move.plan.container.network if move.plan.container else "",
    )


def _capture(move: Move, journal: Journal) -> tuple[capture.Capture, capture.Forwarder]:
    """Nothing is caught yet, and nothing sent on."""
    made = capture.Capture(ipaddress.ip_address(one.ip) for one in move.plan.addresses)

    def send(caught: list[bytes]) -> None:
        move.link.send(payloads.Packets(caught))

    forwarder = capture.Forwarder(made, send, GapFile(journal.directory).add)
    return made, forwarder


def _images(move: Move, journal: Journal) -> Images:
    directory = place.choose_images(move.migration_id)
    journal.did(entries.Images(str(directory), place.device_of(directory)))
    journal.hold(*place.make_images(directory))
    log.criu_in(directory)

    def send(piece: payloads.Piece) -> None:
        move.link.send(piece, kind="image", timeout_s=move.timeout_s)

    sender = Sender(directory, send, move.watch)
    move.ours.callback(sender.stop)
    move.held.kept.callback(sender.abandon)
    move.watch.also(sender.check)  # it may be the one that is told of a failure
    deadline = time.monotonic() + limits.AHEAD_READ_S
    way = memory.make(move.request.memory, directory, move.subject.tasks, sender.grew, deadline)
    return Images(directory, sender, way)


def _isolation(move: Move, journal: Journal) -> Isolation:
    """The filter, which holds nothing yet, and would end by itself long after the work should have."""
    timeout_s = int(move.request.max_gap_s + limits.FILTER_MARGIN_S)
    made = Isolation(move.migration_id, timeout_s=timeout_s)
    journal.did(entries.Isolation(move.migration_id))
    made.prepare()
    return made


def _send_ahead(move: Move, images: Images) -> None:
    """Send of the memory what can be sent while the process runs: only the rest has to travel while it does not."""

    def drain() -> None:
        """Wait until what was read ahead has left."""
        images.sender.drain(limits.AHEAD_S)
        move.link.flush(timeout_s=limits.AHEAD_S)
        move.account.observer.progress(images.sender.sent_bytes, None)
        interrupt.check()

    if (written := move.plan.written) is not None and (container := move.plan.container) is not None:
        mapped = functools.partial(contained.mapped, container, move.plan.process.tasks)
        sent_along.files(written, mapped, sent_along.Way(move.link, move.timeout_s))
    images.sender.start_ahead()
    images.memory.before_freeze(drain)
