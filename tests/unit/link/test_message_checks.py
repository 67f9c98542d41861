"""Messages that can be decoded and make no sense: refused before anything is done with them."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

import golden_icis
import pytest
from inventories import host, process

from migrate import checks
from migrate.destination import announced
from migrate.destination.agent import Agent
from migrate.errors import ImageError, ProtocolError
from migrate.link import message_checks
from migrate.pb import session_pb2 as pb
from migrate.request import Along
from tcpcp.record.ici import Endpoint

TASKS = [pb.TaskState(pid=100, state="S")]


def prepare(**more: Any) -> pb.Prepare:
    address = pb.ServiceAddress(address="10.77.1.100", prefix_length=24)
    return pb.Prepare(**({"pids": [100], "tids": [100, 101], "addresses": [address]} | more))


def held(*holders: pb.Descriptor) -> pb.Restore:
    return pb.Restore(tasks=TASKS, sockets=[pb.HeldSocket(inode=5, holders=holders)])


def listening(congestion: str = "cubic", **options: int) -> pb.Restore:
    return pb.Restore(
        tasks=TASKS, listeners=[pb.SocketOptions(inode=5, options=options, congestion=congestion)]
    )


def others(**values: bytes) -> pb.Restore:
    return pb.Restore(tasks=TASKS, others=[pb.SocketOptions(inode=5, values=values)])


def surrounded(tid: int, *processors: int, pid: int = 100) -> pb.Restore:
    threads = [pb.ThreadSurroundings(tid=tid, processors=processors)]
    return pb.Restore(tasks=TASKS, surroundings=[pb.Surroundings(pid=pid, threads=threads)])


def on(*addresses: str) -> pb.HostInventory:
    return pb.HostInventory(interfaces=[pb.Interface(name="eth0", addresses=addresses, up=True)])


def at(address: str, length: int) -> pb.Prepare:
    return prepare(addresses=[pb.ServiceAddress(address=address, prefix_length=length)])


@pytest.mark.parametrize(
    "message",
    [
        pb.Goodbye(),
        pb.ProcessInventory(),
        prepare(),
        at("fd00::1", 64),
        held(pb.Descriptor(pid=100, fd=3)),
        listening(SO_KEEPALIVE=1, IPV6_V6ONLY=1),
        listening(congestion=""),
        others(SO_TXTIME=bytes(8), IPV6_MULTICAST_IF=b"eth0"),
        listening(SO_RCVTIMEO=7_200_000_000, TCP_KEEPIDLE=86400, TCP_FASTOPEN=5),
        surrounded(101, 0, 8191),
        pb.Activated(destination_pid=7, tasks=[*TASKS, pb.TaskState(pid=101, state="")]),
        on("10.0.0.1/24", "::1/128"),
        host("a", 1),
    ],
)
def test_what_is_said(message: Any) -> None:
    message_checks.check(message)


@pytest.mark.parametrize(
    "message",
    [
        prepare(pids=[]),
        prepare(pids=[0]),
        prepare(tids=[2**32 - 1]),
        at("", 24),
        at("10.0.0.1", 33),
        at("10.0.0.1/8", 24),
        at("fe80::1%eth0", 64),
        held(),
        others(SO_TXTIME=bytes(257)),
        others(**{"not a name": b"x"}),
        listening(SO_WHATEVER=1),
        listening(SO_KEEPALIVE=2**40),
        listening(congestion="cubic\0"),
        listening(congestion="caf\u00e9"),
        pb.Restore(),
        pb.Restore(tasks=[pb.TaskState(pid=0, state="S")]),
        surrounded(0),
        surrounded(1, pid=1 << 23),
        pb.Restore(tasks=TASKS, surroundings=[pb.Surroundings(pid=100, autogroup_nice=20)]),
        surrounded(101, 1 << 20),
        pb.Activated(),
        pb.Activated(destination_pid=2**31),
        pb.Activated(destination_pid=7, tasks=[pb.TaskState(pid=7, state="run")]),
        on("10.0.0.1"),
        on("10.0.0.1/24", "x/24"),
        on("fe80::1%eth0/64"),
    ],
)
def test_what_makes_no_sense(message: Any) -> None:
    with pytest.raises(ProtocolError, match=f"received a {type(message).__name__} with"):
        message_checks.check(message)


def test_the_checks_take_what_was_accepted() -> None:
    endless = pb.HostInventory(criu_version="9" * 5000)  # more digits than Python makes a number of
    assert checks.refusals(process(), endless, endless, Along())
    for text in ("0.0.0.0/0", "::/0", "255.255.255.255/32", "::ffff:10.0.0.1/96"):
        message_checks.check(on(text))
        checks.refusals(process(), on(text), on(text), Along())


def test_the_agent_asks() -> None:
    agent = Agent.__new__(Agent)
    agent._after = "process"
    with pytest.raises(ProtocolError, match="no process"):
        agent._take("prepare", pb.Prepare())
    assert agent._after == "process"


@pytest.mark.parametrize(
    ("said", "namespace", "before"),
    [(0, False, 0), (1, True, 0), (7, False, 0), (2**31 - 1, True, 0), (100, True, 101)],
)
def test_a_destination_pid_that_cannot_be(said: int, namespace: bool, before: int) -> None:
    activated = pb.Activated(destination_pid=said)
    asked = prepare(new_pid_namespace=namespace)
    with pytest.raises(ProtocolError, match=f"Activated with process {said}"):
        message_checks.destination_pid(activated, asked, before)


def test_the_tree_keeps_its_numbers_or_gets_others_in_a_namespace() -> None:
    restored = pb.Restored(destination_pid=100)
    assert message_checks.destination_pid(restored, prepare()) == 100
    restored = pb.Restored(destination_pid=7)
    assert message_checks.destination_pid(restored, prepare(new_pid_namespace=True)) == 7


@pytest.mark.parametrize(
    "message",
    [
        pb.Ask(migration_id="../../etc"),
        pb.Answer(),
        pb.Answer(where=9),  # type: ignore[arg-type]
        pb.Answer(where=pb.Answer.RUNS, destination_pid=1),
    ],
)
def test_questions_and_answers_that_make_no_sense(message: Any) -> None:
    with pytest.raises(ProtocolError):
        message_checks.check(message)


# --- what comes later has to be what was announced -------------------------------------------------------------


def test_another_tree_than_was_announced() -> None:
    announced.tasks(prepare(), TASKS)
    announced.root(prepare(), 100)
    announced.root(prepare(), None)  # CRIU did not say
    with pytest.raises(ProtocolError, match="without process 100"):
        announced.tasks(prepare(), [pb.TaskState(pid=1, state="S")])
    with pytest.raises(ProtocolError, match="images of process 1"):
        announced.root(prepare(), 1)


def test_connections_on_an_address_that_does_not_move() -> None:
    def on_address(text: str) -> Any:
        return dataclasses.replace(
            golden_icis.GOLDEN[next(iter(golden_icis.GOLDEN))], local=Endpoint(ipaddress.ip_address(text), 80)
        )

    announced.addresses(prepare(), map(on_address, ("10.77.1.100", "127.0.0.1", "::1")))
    for other in ("10.77.1.101", "fd77:1::100", "0.0.0.0"):
        with pytest.raises(ImageError, match=f"on {other}, which does not move") as caught:
            announced.addresses(prepare(), [on_address(other)])
        assert caught.value.problem.hint
