"""What the inventories of both hosts say: how the process can be moved, or all reasons why it cannot be.

Nothing is touched on either host.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from migrate import checks, inventory, limits, runtime, switch
from migrate.checks import around, choice, names, obstacles, reconnections, to_forward, units
from migrate.checks.subject import Subject
from migrate.criu import own_namespace
from migrate.errors import Ended, Problem, Refused
from migrate.files.written import Written
from migrate.inventory import beside, ports, proc, replaced
from migrate.link import message_checks
from migrate.origin import chronicle, contained, looked_anew, patience
from migrate.origin.session import Session
from migrate.pb import session_pb2 as pb
from migrate.processes import surroundings
from migrate.processes.oci import Container
from migrate.request import ANYWHERE, FORWARD, Request, apart, ways
from migrate.runtime import Runtime
from migrate.runtime.unit import OfUnit


@dataclass(slots=True)
class Plan:
    """What the checks found out and the steps need.

    :ivar runtime: what keeps the process on this host.
    :ivar copy: files to copy before the freeze.
    :ivar notes: what the user should know although it is no reason to refuse.
    :ivar addresses: those that are switched, with those that stay here though connections from them do not.
    :ivar switch: how traffic is switched, as the origin's part has to know it.
    :ivar container: if it is one. :ivar written: what it has written to files that go along beside it.
    :ivar sends_image: whether its image is missing on the destination, and goes along, too.
    :ivar bystanders: the PIDs of all processes that were there when it was looked at who else holds what it holds.
    """

    runtime: Runtime
    process: pb.ProcessInventory
    prepare: pb.Prepare
    addresses: list[switch.Address]
    switch: str
    copy: list[pb.File] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bystanders: frozenset[int] = frozenset()
    container: Container | None = None
    written: Written | None = None
    sends_image: bool = False

    @property
    def leaving(self) -> list[str]:
        """The service addresses: those of :attr:`addresses` that do not stay here."""
        return [one.ip for one in self.addresses if not one.stays]


def check(session: Session) -> Plan:
    """Look at the process and both hosts.

    :raises Refused: with all reasons.
    """
    request = session.request
    session.machine.make_ready("check")
    with session.account.phase("check"):
        bystanders = frozenset(proc.pids())
        kept, process = described(request, session.container)
        left = _add_beside(process, request)
        session.link.send(process)
        chronicle.process(process)
        here = inventory.host([session.ends[0]], process)
        there = session.link.expect(pb.HostInventory, timeout_s=limits.ANSWER_S)
        message_checks.check(there)
        there.ssh_addresses.append(session.ends[1])
        contained.at_home(here, there, session.container)
        chronicle.hosts(here, there, session.ends)
        looked_anew.compare(session.files, process, there, lambda: _files_now(session))
        plan = _plan(request, kept, process, here, there)
        needed, lent = look_at_switch(process, plan.addresses, plan.switch, session.migration_id)
        switching = plan.prepare.switch_kind
        reasons = checks.refusals(process, here, there, request.along, needed, switch=switching)
        reasons += contained.reasons(session.container, process.container.archive)
        if reasons:
            raise Refused(reasons)
        plan.bystanders, plan.container = bystanders, session.container
        plan.written, plan.sends_image = contained.written(session.container), there.lacks_image
        plan.copy += contained.files(session.container, there)
        plan.notes += contained.notes(session.container, there)
        plan.notes += (
            left + replaced.notes(there.files) + lent + checks.notes_on_files(process, there, request.along)
        )
        return plan


def _add_beside(process: pb.ProcessInventory, request: Request) -> list[str]:
    return beside.add(process, request.along.copy_trees, copying=request.along.copy_files)


def _files_now(session: Session) -> list[pb.File]:
    _, found = described(session.request, session.container)
    _add_beside(found, session.request)
    return list(found.files)


def described(request: Request, container: Container | None) -> tuple[Runtime, pb.ProcessInventory]:
    """What keeps the process that was asked for on this host, and all that it holds, with its service addresses."""
    kept = _kept(request, container)
    process = kept.inventory(request.pid)
    process.service_addresses.extend(request.along.addresses)
    if container:
        contained.describe(process, container, kept)
        process.service_addresses.extend(contained.addresses(container))
    process.service_addresses[:] = ports.service_addresses(process)
    return kept, process


def _kept(request: Request, container: Container | None) -> Runtime:
    """What keeps it: who was named, or who has the process."""
    if request.named.unit:
        return OfUnit(request.named.unit)
    return runtime.find(container.runtime) if container else runtime.of(request.pid)


def switched(
    request: Request, process: pb.ProcessInventory, here: pb.HostInventory, there: pb.HostInventory
) -> tuple[str, str, list[switch.Address]]:
    """How traffic is switched, why that was chosen, and the addresses that are, as this host has them."""
    kind, why = choice.chosen(Subject(process, here, there, request.along, switch=request.switch))
    return kind, why, _addresses(Subject(process, here, there, request.along, switch=kind))


def look_at_switch(
    process: pb.ProcessInventory, addresses: list[switch.Address], kind: str, migration_id: str
) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Which of the addresses this host cannot do without: why, and what to do; and notes on the others."""
    flows = to_forward.flows(process)
    found = {one.ip: switch.look(kind, migration_id, one, flows) for one in addresses}
    needed = {ip: (one.text, one.hint) for ip, one in found.items() if isinstance(one, Problem)}
    return needed, [note for one in found.values() if not isinstance(one, Problem) for note in one]


def _plan(
    request: Request,
    kept: Runtime,
    process: pb.ProcessInventory,
    here: pb.HostInventory,
    there: pb.HostInventory,
) -> Plan:
    along = request.along
    kind, why, addresses = switched(request, process, here, there)
    pids, tids = _numbers(process)
    prepare = pb.Prepare(
        switch_kind=kind,
        addresses=[
            pb.ServiceAddress(
                address=one.ip, prefix_length=one.prefix_length, device=one.device, stays=one.stays
            )
            for one in addresses
        ],
        shell_job=along.shell_job or process.session_ended,
        new_pid_namespace=around.needs_new_pids(process, there),
        pids=pids,
        tids=tids,
        timeout_s=int(request.timeout_s),
        # Else both hosts are on one network, that of the address or of the gateway: the checks made sure.
        same_path=ways(kind).isdisjoint((*ANYWHERE, FORWARD)),
        personality=surroundings.personality(process.root_pid),
        connections=sum(1 for one in process.sockets if one.peer_port),
        runtime=kept.name,
        unix_sockets=[one for one in process.names if one.kind == pb.TakenName.PATH],
        reconnections=reconnections.made_anew(process, along),
    )
    copy = checks.files_to_copy(process, there, along.copy_trees) if along.copy_files else []
    notes = [f"--switch auto: {kind}, since {why}"] if why else []
    notes += checks.notes(process, here, switch=kind) + names.notes(process) + around.notes(process, there)
    notes += names.notes_on_backlogs(process, there) + reconnections.notes(process, along)
    notes += units.notes(process, there)
    notes += obstacles.notes(process) + around.notes_on_pids(process, there, pids[0])
    if request.check:
        notes.append(patience.in_words(request.max_gap_s))
    return Plan(kept, process, prepare, addresses, _switch(kind, addresses, there), copy=copy, notes=notes)


def _addresses(subject: Subject) -> list[switch.Address]:
    """Those that are switched, as this host has them."""
    placed: dict[str, tuple[int, str]] = {
        ip: (ipaddress.ip_address(ip).max_prefixlen, "")
        for ip in subject.process.service_addresses
        if subject.forward and to_forward.goes_home(subject, ipaddress.ip_address(ip))
    }
    for interface in subject.origin.interfaces:
        for text in interface.addresses:
            ip, _, length = text.partition("/")
            placed[ip] = (int(length), interface.name)
    wanted = (ip for ip in subject.process.service_addresses if ip in placed)
    return [
        switch.Address(ip, *placed[ip], to_forward.stays(subject, ipaddress.ip_address(ip))) for ip in wanted
    ]


def _switch(kind: str, addresses: list[switch.Address], there: pb.HostInventory) -> str:
    """With what the origin alone has to know of the destination."""
    forward, rest = apart(kind)
    staying = [one for one in addresses if one.stays and one.device]
    if forward != FORWARD or not staying:
        return kind
    via = to_forward.neighbour(there, staying[0].ip, staying[0].prefix_length)
    return "+".join(filter(None, (":".join(filter(None, (FORWARD, via))), rest)))


def _numbers(process: pb.ProcessInventory) -> tuple[list[int], list[int]]:
    """Those of its tasks, the root first, and of their threads, as they see them."""
    numbers = own_namespace.numbers(process.root_pid, (task.pid for task in process.tasks))
    if not numbers.those_inside([process.root_pid]):
        raise Ended(f"process {process.root_pid} has ended")
    return (
        numbers.those_inside(task.pid for task in process.tasks),
        numbers.those_inside(tid for task in process.tasks for tid in task.tids),
    )
