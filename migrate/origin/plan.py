"""What the inventories of both hosts say: how the process can be moved, or all reasons why it cannot be.

Nothing is touched on either host.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from migrate import checks, inventory, limits, runtime, switch
from migrate.checks import around, names, obstacles, to_forward, units
from migrate.criu import own_namespace
from migrate.errors import Ended, Problem, Refused
from migrate.inventory import beside, ports, proc, replaced
from migrate.link import message_checks
from migrate.origin import chronicle, contained, patience
from migrate.origin.session import Session
from migrate.pb import session_pb2 as pb
from migrate.processes import surroundings
from migrate.processes.oci import Container
from migrate.request import ANYWHERE, FORWARD, Request
from migrate.runtime import Runtime
from migrate.runtime.unit import OfUnit


@dataclass(slots=True)
class Plan:
    """What the checks found out and the steps need.

    :ivar runtime: what keeps the process on this host.
    :ivar copy: files to copy before the freeze.
    :ivar notes: what the user should know although it is no reason to refuse.
    :ivar switch: how traffic is switched, as the origin's part has to know it.
    :ivar container: if it is one.
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


def check(session: Session) -> Plan:
    """Look at the process and both hosts.

    :raises Refused: with all reasons.
    """
    request = session.request
    session.machine.make_ready("check")
    with session.account.phase("check"):
        kept = _kept(session)
        bystanders = frozenset(proc.pids())
        process = kept.inventory(request.pid)
        process.service_addresses.extend(request.along.addresses)
        if session.container:
            contained.describe(process, session.container, kept)
            process.service_addresses.extend(contained.addresses(session.container))
        process.service_addresses[:] = ports.service_addresses(process)
        left = beside.add(process, request.along.copy_trees, copying=request.along.copy_files)
        session.link.send(process)
        chronicle.process(process)
        here = inventory.host([session.ends[0]], process)
        there = session.link.expect(pb.HostInventory, timeout_s=limits.ANSWER_S)
        message_checks.check(there)
        there.ssh_addresses.append(session.ends[1])
        contained.at_home(here, there, session.container)
        chronicle.hosts(here, there, session.ends)
        session.files.compare(process, there)
        plan = _plan(request, kept, process, here, there)
        needed, lent = _needed(session, plan)
        reasons = checks.refusals(process, here, there, request.along, needed, switch=request.switch)
        reasons += contained.reasons(session.container)
        if reasons:
            raise Refused(reasons)
        plan.bystanders, plan.container = bystanders, session.container
        plan.copy += contained.files(session.container, there)
        plan.notes += (
            left + replaced.notes(there.files) + lent + checks.notes_on_files(process, there, request.along)
        )
        return plan


def _kept(session: Session) -> Runtime:
    """What keeps it: who was named, or who has the process."""
    if session.request.named.unit:
        return OfUnit(session.request.named.unit)
    if session.container:
        return runtime.find(session.container.runtime)
    return runtime.of(session.request.pid)


def _needed(session: Session, plan: Plan) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Which of the addresses this host cannot do without: why, and what to do; and notes on the others."""
    flows = to_forward.flows(plan.process)
    found = {one.ip: switch.look(plan.switch, session.migration_id, one, flows) for one in plan.addresses}
    needed = {ip: (one.text, one.hint) for ip, one in found.items() if isinstance(one, Problem)}
    return needed, [note for one in found.values() if not isinstance(one, Problem) for note in one]


def _plan(
    request: Request,
    kept: Runtime,
    process: pb.ProcessInventory,
    here: pb.HostInventory,
    there: pb.HostInventory,
) -> Plan:
    placed = {}
    for interface in here.interfaces:
        for text in interface.addresses:
            ip, _, length = text.partition("/")
            placed[ip] = switch.Address(ip, int(length), interface.name)
    addresses = [placed[ip] for ip in process.service_addresses if ip in placed]
    pids, tids = _numbers(process)
    prepare = pb.Prepare(
        switch_kind=request.switch,
        addresses=[
            pb.ServiceAddress(address=one.ip, prefix_length=one.prefix_length, device=one.device)
            for one in addresses
        ],
        shell_job=request.along.shell_job,
        new_pid_namespace=around.needs_new_pids(process, there),
        pids=pids,
        tids=tids,
        timeout_s=int(request.timeout_s),
        # Else both hosts are on one network, that of the address or of the gateway: the checks made sure.
        same_path=request.switch.partition(":")[0] not in (*ANYWHERE, FORWARD),
        personality=surroundings.personality(process.root_pid),
        connections=sum(1 for one in process.sockets if one.peer_port),
        runtime=kept.name,
        unix_sockets=[one for one in process.names if one.kind == pb.TakenName.PATH],
    )
    trees = request.along.copy_trees
    copy = checks.files_to_copy(process, there, trees) if request.along.copy_files else []
    notes = checks.notes(process) + names.notes(process) + around.notes(process, there)
    notes += names.notes_on_backlogs(process, there) + units.notes(process, there)
    notes += obstacles.notes(process) + around.notes_on_pids(process, there, pids[0])
    if request.check:
        notes.append(patience.in_words(request.max_gap_s))
    return Plan(kept, process, prepare, addresses, _switch(request, addresses, there), copy=copy, notes=notes)


def _switch(request: Request, addresses: list[switch.Address], there: pb.HostInventory) -> str:
    """With what the origin alone has to know of the destination."""
    if request.switch != FORWARD or not addresses:
        return request.switch
    return ":".join(
        filter(None, (FORWARD, to_forward.neighbour(there, addresses[0].ip, addresses[0].prefix_length)))
    )


def _numbers(process: pb.ProcessInventory) -> tuple[list[int], list[int]]:
    """Those of its tasks, the root first, and of their threads, as they see them."""
    numbers = own_namespace.numbers(process.root_pid, (task.pid for task in process.tasks))
    if not numbers.those_inside([process.root_pid]):
        raise Ended(f"process {process.root_pid} has ended")
    return (
        numbers.those_inside(task.pid for task in process.tasks),
        numbers.those_inside(tid for task in process.tasks for tid in task.tids),
    )
