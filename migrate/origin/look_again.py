"""The frozen tree, looked at again: what it has begun to use since the check, and would not have over there.

Before the dump: CRIU reads files, of which a program may be told that watches them (inotify), and works in the
tasks with descriptors of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from migrate.checks import reconnections
from migrate.checks.obstacles import notes as obstacle_notes
from migrate.checks.obstacles import obstacles
from migrate.checks.subject import Subject
from migrate.errors import MigrateError
from migrate.inventory import expired_timers, of_container, of_unit, open_files, waiters
from migrate.origin import contained
from migrate.origin.frozen import FrozenTree
from migrate.origin.plan import Plan
from migrate.pb.session_pb2 import HostInventory, Obstacle, ProcessInventory
from migrate.request import Along


def at(tree: FrozenTree, plan: Plan, known: Collection[str], along: Along) -> open_files.Again:
    """Make sure that there is nothing that cannot be moved; what else was found. Expired timers count on.

    :param plan: has what it held when it was checked, and could be moved.
    :param known: paths of files that were compared.
    :param along: what the user has said of what goes along.
    :raises MigrateError: there is.
    """
    checked = plan.process
    tcp = {one.inode for one in checked.sockets}
    pids = [pid for pid, _ in tree.tasks]
    found = open_files.again(pids, known, tcp, plan.bystanders, tree.numbers)
    if plan.container:
        found = of_container.again(pids[0], found, contained.root(plan.container))
    if checked.unit.name:
        found.obstacles[:] = of_unit.but_streams(checked.unit.streams, found.obstacles)
    process = ProcessInventory(
        tasks=checked.tasks,
        obstacles=found.obstacles,
        reconnections=found.reconnections,
        unit=checked.unit,
    )
    subject = Subject(process, HostInventory(), HostInventory(), along)
    told = {one.inode for one in plan.prepare.reconnections}
    reasons = [*obstacles(subject), *reconnections.idle(subject), *reconnections.begun_since(subject, told)]
    if reasons:
        raise MigrateError(
            f"{reasons[0].text} (not seen when it was checked)",
            hint=reasons[0].remedy,
            details=[one.text for one in reasons],
        )
    expired_timers.count_on(found.expired)
    return found


def notes(obstacles: Iterable[Obstacle], checked: ProcessInventory) -> list[str]:
    """What of *obstacles* will be different since the check, and was not noted then."""
    known = {(one.code, one.pid, one.fd) for one in checked.obstacles}
    new = [one for one in obstacles if (one.code, one.pid, one.fd) not in known]
    return obstacle_notes(ProcessInventory(tasks=checked.tasks, obstacles=new))


def awaited(again: open_files.Again, tree: FrozenTree) -> list[Obstacle]:
    """Who waits for a lock of the tree: no more than a note; it takes long, and CRIU may be at work meanwhile."""
    return list(waiters.obstacles(again.locks, {pid for pid, _ in tree.tasks}))
