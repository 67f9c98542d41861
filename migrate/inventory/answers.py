"""What this host has of what a process needs: PIDs, ports and files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from migrate.criu import probe
from migrate.inventory import (
    compared,
    container_there,
    holders,
    names,
    nowhere,
    of_host,
    podman_there,
    ports,
    proc,
    reconnections,
    unit_there,
)
from migrate.inventory.tcp_row import message
from migrate.pb.session_pb2 import HostInventory, ProcessInventory, TcpSocket
from tcpcp.errors import KernelError
from tcpcp.kernel import diag


def host(
    ssh_addresses: Iterable[str] = (),
    process: ProcessInventory | None = None,
    criu_problem: Callable[[str | None], str] = probe.problem,
) -> HostInventory:
    """Look at this host as the origin.

    Nothing changes; no error is raised, ``problems`` says what could not be found out.

    :param ssh_addresses: addresses of this host that our own session uses, beside SSH_CONNECTION's.
    :param process: then ``taken_ports`` are sockets of other processes on its service addresses.
    :param criu_problem: says what is wrong with the CRIU at a path, or "".
    """
    found = of_host.inspect(ssh_addresses, criu_problem)
    if process is not None:
        add_sharers(found, process)
    return found


def add_sharers(found: HostInventory, process: ProcessInventory) -> None:
    """Add to *found*, this host, the sockets of other processes on the service addresses of *process*."""
    moving = {ports.packed(address) for address in ports.service_addresses(process)}
    ours = {one.inode for one in process.sockets} | {0}
    if moving:

        def wanted(one: TcpSocket) -> bool:
            return one.local_ip in moving and one.inode not in ours

        theirs = {one.inode for one in _others(found, wanted, process)}
        # A child of the tree that had one of its sockets until it executed another program, and has ended, is
        # nobody's child any more: who has them a moment later tells.
        if theirs and (still := _others(found, wanted, process)):
            found.taken_ports.extend(one for one in still if one.inode in theirs)


def _others(
    found: HostInventory, wanted: Callable[[TcpSocket], bool], process: ProcessInventory
) -> list[TcpSocket]:
    """The sockets of this host that are *wanted* and not the tree's own."""
    _sockets(found, wanted)
    theirs = [one for one in found.taken_ports if not _of_tree(one, process)]
    found.ClearField("taken_ports")
    return theirs


def _of_tree(one: TcpSocket, process: ProcessInventory) -> bool:
    """Whether a socket is the tree's own, which runs: made or accepted since it was looked at, or by a new child,
    or one of its listeners' that waits to be accepted.
    """
    if one.holder:
        return proc.descends(one.pid, {task.pid for task in process.tasks})
    return ports.is_connection(one) and any(ports.accepts(ours, one) for ours in process.sockets)


def answer(
    process: ProcessInventory,
    ssh_addresses: Iterable[str] = (),
    criu_problem: Callable[[str | None], str] = probe.problem,
) -> HostInventory:
    """Look at this host as the destination of *process*: which of its PIDs, ports and files are here.

    Parameters and errors as of :func:`host`.
    """
    found = of_host.inspect(ssh_addresses, criu_problem)
    found.reconnects, found.nonlocal_bind = True, nowhere.is_permitted_to_all()
    _pids(process, found)
    found.files.extend(compared.there(list(process.files)))
    _names(found, process)
    if process.container.archive:
        found.refusals.extend(podman_there.refusals(process.container))
        found.lacks_image = podman_there.lacks_image(process.container)
    elif process.container.name:
        found.refusals.extend(container_there.refusals(process))
        found.lacks_configuration = not container_there.configuration(process.container).exists()
    if process.unit.name:
        unit_there.answer(process.unit, found)
    claims = ports.Claims(process.sockets)
    if claims:
        _sockets(found, claims.clash)
    return found


def _names(found: HostInventory, process: ProcessInventory) -> None:
    try:
        found.taken_names.extend(names.taken(process.names))
        found.deaf.extend(reconnections.deaf(process))
    except KernelError as error:
        found.problems.append(f"the unix sockets of this host cannot be listed: {error}")


def _sockets(found: HostInventory, wanted: Callable[[TcpSocket], bool]) -> None:
    """Add the sockets of this host that are *wanted*, each with its holder."""
    try:
        taken, held = _with_holders(wanted)
    except KernelError as error:
        found.problems.append(f"the sockets of this host cannot be listed: {error}")
        return
    for one in taken:
        if one.inode in held:
            one.holder, one.pid, one.fd = held[one.inode]
    found.taken_ports.extend(taken)


def _with_holders(
    wanted: Callable[[TcpSocket], bool],
) -> tuple[list[TcpSocket], dict[int, holders.SocketHolder]]:
    """The sockets that are *wanted*, and by inode who holds them; nobody what is on its way between two processes.

    One of which no process is found may have been closed since: it is looked for again.

    :raises KernelError: they cannot be listed.
    """
    taken = [one for one in map(message, diag.tcp()) if wanted(one)]
    held = holders.of_sockets({one.inode for one in taken} - {0})
    if unheld := {one.inode for one in taken} - {0, *held}:
        there = {one.inode for one in diag.tcp()}
        taken = [one for one in taken if one.inode not in unheld or one.inode in there]
        held |= holders.of_sockets(unheld & there)
    return taken, held


def _pids(process: ProcessInventory, found: HostInventory) -> None:
    """Add the numbers of *process* that are taken here, by a task or by a group or session without leader."""
    wanted = set(process.needed_pids)
    names: dict[int, str] = {}
    for pid in proc.pids():
        with proc.passing_over():
            stat = proc.stat(pid)
            names[pid] = stat.comm
            for number, kind in ((stat.pgrp, "process group"), (stat.session, "session")):
                if number in wanted:
                    names.setdefault(number, f"{kind} of {stat.comm} (PID {pid})")
    # Threads are not listed in /proc, but can be looked up in it.
    for number in sorted(wanted):
        if number in names or Path(f"/proc/{number}").exists():
            found.taken_pids.append(number)
            found.taken_by[number] = names.get(number, "a thread")
