"""The reasons that a host can tell without another one: all, and none that another one could do away with."""

from __future__ import annotations

import pytest
from inventories import connection, destination, listener, mapped, origin, process, reasons, task

from migrate.checks import here
from migrate.checks import reasons as with_host
from migrate.errors import Reason
from migrate.pb.session_pb2 import (
    Container,
    File,
    HostInventory,
    Obstacle,
    ProcessInventory,
    Supervisor,
    TcpSocket,
    Unit,
)
from migrate.request import Along


def alone(
    of: ProcessInventory | None = None, host: HostInventory | None = None, switch: str = "address"
) -> list[Reason]:
    return here.refusals(of or process(), host or origin(), Along(), switch=switch)


def test_nothing_in_the_way() -> None:
    assert alone() == []


OF_A_UNIT = {"Type": "simple", "FreezerState": "running"} | dict.fromkeys(
    ("Transient", "Delegate", "TriggeredBy", "UpheldBy", "OnSuccess"), ""
)
#: What stands in the way wherever the process would go: by its code.
IN_THE_WAY: list[tuple[str, ProcessInventory, HostInventory]] = [
    ("traced", process(obstacles=[Obstacle(code="traced", pid=100, what="7")]), origin()),
    ("supervised", process(supervisors=[Supervisor(pid=9, comm="runsv")]), origin()),
    ("shell-job", process(tasks=[task(sid=7)]), origin()),
    ("self", process(driver_pids=[500, 100, 1]), origin()),
    ("zombie", process(tasks=[task(zombie=True)]), origin()),
    ("kernel-thread", process(tasks=[task(kernel_thread=True)]), origin()),
    ("socket", process(sockets=[listener(), connection(problem="urgent data")]), origin()),
    ("peer-on-origin", process(sockets=[listener(), connection(peer="10.77.1.1")]), origin()),
    ("address-unknown", process(sockets=[listener("0.0.0.0")]), origin()),
    ("address-of-host", process(sockets=[listener("10.77.1.1")]), origin()),
    ("address-missing", process(sockets=[listener("10.77.1.7")]), origin()),
    (
        "address-shared",
        process(),
        origin(taken_ports=[TcpSocket(state=10, local_ip=listener().local_ip, local_port=81, holder="b")]),
    ),
    ("criu-missing", process(), origin(criu_version="")),
    ("criu-broken", process(), origin(criu_problem="it fails")),
    ("host-problem", process(), origin(problems=["the packet filter cannot be used"])),
    ("no-image-space", process(), origin(image_space_bytes=1)),
    ("no-memory", process(), origin(memory_available_bytes=1)),
    ("unit-others", process(unit=Unit(name="a.service", properties=OF_A_UNIT, others=["b"])), origin()),
    ("no-checkpoint", process(container=Container(name="web", runtime="runc", problem="x")), origin()),
]


@pytest.mark.parametrize(("code", "of", "host"), IN_THE_WAY, ids=[one[0] for one in IN_THE_WAY])
def test_it_is_told_without_a_destination_as_with_one(
    code: str, of: ProcessInventory, host: HostInventory
) -> None:
    told = [one for one in alone(of, host) if one.code == code]
    assert told and told == [one for one in reasons(of, host) if (one.code, one.role) == (code, "origin")]


def test_what_another_host_could_do_away_with_is_left_to_the_check_with_it() -> None:
    file = File(
        path="/srv/a",
        use=File.OPEN,
        exists=True,
        regular=True,
        written=True,
        writers=["b (PID 7)"],
        locks=["POSIX  ADVISORY  WRITE"],
    )
    of = process(files=[file, mapped()])
    assert "file-outside" in {one.code for one in reasons(of, there=destination(files=[]))}
    assert alone(of) == []


def test_each_check_is_one_of_those_with_a_destination_in_the_same_order() -> None:
    for mine, theirs in (
        (here.OF_THIS_HOST, with_host.OF_HOSTS),
        (here.OF_THE_CHOICE, with_host.OF_THE_CHOICE),
        (here.OF_THE_PROCESS, with_host.OF_THE_PROCESS),
    ):
        assert [one for one in theirs if one in mine] == list(mine)


def test_a_process_that_cannot_be_named_has_no_other_reason() -> None:
    of = process(tasks=[task(zombie=True)], obstacles=[Obstacle(code="traced", pid=100, what="7")])
    assert {one.code for one in alone(of)} == {"zombie"}


def test_equal_ones_of_many_processes_are_one_with_their_numbers() -> None:
    tasks = [task(100 + number, ppid=100 if number else 1, sid=100) for number in range(17)]
    found = [Obstacle(code="sysv-shm", pid=one.pid, what="key 7") for one in tasks]
    told = alone(process(tasks=tasks, obstacles=found))
    assert [one.code for one in told] == ["sysv-shm"]
    assert told[0].pids == tuple(range(100, 117)) and "PIDs 100, 101" in told[0].text
