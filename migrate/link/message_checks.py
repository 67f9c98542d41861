"""Whether a message of the session holds what its receiver relies on. Pure.

A frame that can be decoded is a message, but any text may stand where an address belongs, and any list may be
empty. What is wrong is found here, before anything is done with the message.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from migrate import place, words
from migrate.errors import ProtocolError
from migrate.link.payloads import Connections
from migrate.pb import session_pb2 as pb
from tcpcp.record import option_names

#: PIDs are below 2**22 on every Linux (include/linux/threads.h PID_MAX_LIMIT).
_MOST_PID = 1 << 22
#: More than any kernel is built for (arch/*/Kconfig NR_CPUS).
_MOST_PROCESSORS = 1 << 16
#: A letter as in /proc/PID/stat, or nothing: it has ended.
_STATE = re.compile(r"[A-Za-z]?")
#: More than any socket option has that is no number.
_MOST_OPTION_BYTES = 256
#: Parts of paths, and a program that is started.
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,254}@(runc|crun|podman)")
_NUMBER = re.compile(r"[0-9a-f]{64}")
_ALGORITHM = re.compile(r"[A-Za-z0-9_.-]{0,15}")


def check(message: Any) -> None:
    """Accept *message*, or refuse it.

    :raises ProtocolError: it holds what no driver or agent says.
    """
    problems = _CHECKS.get(type(message), _nothing)(message)
    if (problem := next(problems, None)) is not None:
        raise ProtocolError(f"received a {type(message).__name__} with {problem}")


def destination_pid(message: pb.Restored | pb.Activated, prepare: pb.Prepare, before: int = 0) -> int:
    """The number of the tree's root on the destination, as *message* says it.

    :param before: what it has said before.
    :raises ProtocolError: it cannot be: the tree keeps its numbers, unless it gets a PID namespace.
    """
    said = message.destination_pid
    own = prepare.new_pid_namespace or prepare.runtime not in ("", "bare", "systemd")
    expected = before or (0 if own else prepare.pids[0])
    if not 1 < said <= _MOST_PID or expected not in (0, said):
        text = f"received a {type(message).__name__} with process {said}"
        wanted = f", which should be {expected}" if expected else ", which is no moved one"
        raise ProtocolError(text + wanted)
    return said


def _nothing(_: Any) -> Iterator[str]:
    return iter(())


def _prepare(message: pb.Prepare) -> Iterator[str]:
    if not message.pids:
        yield "no process"
    if any(not 0 < number <= _MOST_PID for number in (*message.pids, *message.tids)):
        yield "a number that no process can have"
    for one in message.addresses:
        if not _is_interface(f"{one.address}/{one.prefix_length}"):
            yield f"an address that is none: {one.address[:100]!r}/{one.prefix_length}"
    for name in message.unix_sockets:
        if not place.is_absolute(name.name):
            yield f"a unix socket at no path: {name.name[:100]!r}"


def _process(message: pb.ProcessInventory) -> Iterator[str]:
    if message.HasField("unit"):
        yield from _unit(message)
    container = message.container
    if not message.HasField("container"):
        return
    if not _CONTAINER.fullmatch(f"{container.name}@{container.runtime}"):
        yield f"a container of no possible name: {container.name[:100]!r} of {container.runtime[:100]!r}"
    if (container.runtime == "podman") != bool(container.archive):
        yield f"a container of {container.runtime[:100]} and an archive of {len(container.archive)} bytes"
    if container.archive and not (_NUMBER.fullmatch(container.id) and container.by in ("runc", "crun")):
        yield f"a container of no possible number: {container.id[:100]!r} by {container.by[:100]!r}"
    if any(
        one[:1] in ("", "-")
        for one in (
            *container.networks,
            *container.addresses,
            *filter(None, [container.image, container.image_name]),
        )
    ):
        yield "a network, an address or an image of no possible name"
    if not place.is_absolute(container.bundle):
        yield f"a bundle at no path: {container.bundle[:100]!r}"
    if container.network and not place.is_absolute(container.network):
        yield f"a network namespace at no path: {container.network[:100]!r}"


def _unit(message: pb.ProcessInventory) -> Iterator[str]:
    unit = message.unit
    if not words.is_unit(unit.name):
        yield f"a unit of no possible name: {unit.name[:100]!r}"
    if message.HasField("container"):
        yield f"a unit, {unit.name[:100]}, that is a container"
    if any(number not in (1, 2) for number in unit.streams.values()) or unit.mode > 0o777:
        yield f"a unit, {unit.name[:100]}, with streams or a mode that there are not"


def _restore(message: pb.Restore) -> Iterator[str]:
    if not message.tasks:
        yield "no process"
    yield from _tasks(message.tasks)
    yield from _held(message.sockets)
    for one in message.listeners:
        for name, value in one.options.items():
            option = option_names.OPTIONS.get(name)
            if option is None or option.problem(value):
                yield f"a socket option that is none: {name[:100]!r} = {value}"
        if not _ALGORITHM.fullmatch(one.congestion):
            yield f"a congestion control of no possible name: {one.congestion[:100]!r}"
    for one in message.others:
        for name, value in one.options.items():
            if not name.isidentifier() or not -(1 << 31) <= value < 1 << 31:
                yield f"a socket option that is none: {name[:100]!r} = {value}"
        for name, content in one.values.items():
            if not name.isidentifier() or len(content) > _MOST_OPTION_BYTES:
                yield f"a socket option that is none: {name[:100]!r} = {content[:100]!r}"
    for process in message.surroundings:
        numbers = {process.pid, *(thread.tid for thread in process.threads)}
        if any(not 0 < number <= _MOST_PID for number in numbers):
            yield "a number that no process can have"
        if any(number >= _MOST_PROCESSORS for thread in process.threads for number in thread.processors):
            yield "a processor that no host has"
        if not -20 <= process.autogroup_nice < 20:
            yield f"a nice value that there is not: {process.autogroup_nice}"


def _activated(message: pb.Activated) -> Iterator[str]:
    if not 0 < message.destination_pid <= _MOST_PID:
        yield f"a number that no process can have: {message.destination_pid}"
    yield from _tasks(message.tasks)


def _held(sockets: Iterable[pb.HeldSocket]) -> Iterator[str]:
    for held in sockets:
        if not held.holders:
            yield f"a socket {held.inode} that nobody holds"


def _tasks(tasks: Iterable[pb.TaskState]) -> Iterator[str]:
    for one in tasks:
        if not 0 < one.pid <= _MOST_PID:
            yield f"a number that no process can have: {one.pid}"
        if not _STATE.fullmatch(one.state):
            yield f"a state that is none: {one.state[:100]!r}"


def _ask(message: pb.Ask) -> Iterator[str]:
    if not place.valid_id(message.migration_id):
        yield f"an id that is none: {message.migration_id[:100]!r}"


def _answer(message: pb.Answer) -> Iterator[str]:
    if message.where not in pb.Answer.Where.values() or not message.where:
        yield f"a place that is none: {message.where}"
    if message.where in (pb.Answer.RUNS, pb.Answer.ENDED) and not 1 < message.destination_pid <= _MOST_PID:
        yield f"a number that no moved process can have: {message.destination_pid}"


def _host(message: pb.HostInventory) -> Iterator[str]:
    for interface in message.interfaces:
        for text in interface.addresses:
            if not _is_interface(text):
                yield f"an address that is none: {text[:100]!r}"


def _is_interface(text: str) -> bool:
    """Whether *text* is an address with the length of its network, and without a scope."""
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return "/" in text and "%" not in text


_CHECKS: Mapping[type, Callable[[Any], Iterator[str]]] = {
    pb.Ask: _ask,
    pb.Answer: _answer,
    pb.ProcessInventory: _process,
    pb.Prepare: _prepare,
    pb.Restore: _restore,
    Connections: lambda said: _held(said.sockets),
    pb.Activated: _activated,
    pb.Goodbye: lambda message: _tasks(message.tasks),
    pb.HostInventory: _host,
}
