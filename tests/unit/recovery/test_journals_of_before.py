"""Journals as versions before wrote them, from disk: read as classes, written again byte for byte, and undone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from migrate import switch
from migrate.errors import MigrateError
from migrate.files.entries import Copied, Directory
from migrate.journal.entry import Entry, Unreadable
from migrate.journal.reach import Reach
from migrate.recovery import records, undo
from migrate.recovery.entries import (
    KINDS,
    Arriving,
    AtPodman,
    AtUnit,
    Container,
    Criu,
    EndedCalls,
    Freezer,
    Images,
    Isolation,
    Joined,
    Keeper,
    Limit,
    Muted,
    OfPodman,
    OfUnit,
    OnTheWay,
    Repair,
    Routes,
    Sockets,
    Stop,
    Switch,
    Tree,
)
from migrate.switch.address.setup import Setup, Until
from tcpcp.endpoint import isolation, same_path

GOLDEN = Path(__file__).parents[1] / "golden/journals"
IDS = {"origin": "0123456789ab", "destination": "ba9876543210"}
#: Of a container.
NUMBER = "0123456789abcdef" * 4
DROP_IN = "/nonexistent/gone.service.d/zz.conf"
TASKS = ((999998, 1111), (999996, 1112))
ATTRIBUTES = {"scope": 0, "label": "eth0", "broadcast": "192.0.2.255"}
WITHDRAWN: dict[str, Any] = {
    "kind": "address",
    "role": "origin",
    "migration_id": IDS["origin"],
    "addresses": [["192.0.2.77", 24, "eth0"]],
    "found": [
        {"ip": "192.0.2.77", "prefix_length": 24, "index": 2, "device": "eth0", "attributes": ATTRIBUTES}
    ],
}
#: Since then all that is to be had again is noted.
ALL_OF_IT = WITHDRAWN | {
    "found": [
        {
            "ip": "192.0.2.77",
            "prefix_length": 24,
            "index": 2,
            "device": "eth0",
            "attributes": {
                "scope": 0,
                "flags": 512,
                "label": "eth0:a",
                "broadcast": "192.0.2.255",
                "rt_priority": 100,
            },
            "peer": "",
            "until": [70000.5, 69000.5],
            "routes": [
                "02180000fe02fd010000000008000100c00002000800040002000000080006006400000008000700c000024d08000f00"
                "fe000000"
            ],
        }
    ]
}
PLACED = {
    "kind": "address",
    "role": "destination",
    "migration_id": IDS["destination"],
    "addresses": [["192.0.2.77", 24, ""], ["2001:db8::77", 64, ""]],
    "placed": [["192.0.2.77", 24, 3, "eth1"], ["2001:db8::77", 64, 3, "eth1"]],
}
MARK, IMAGES = f"MIGRATE_ID={IDS['destination']}", f"/run/migrate-{IDS['destination']}"
NOTED: dict[str, list[Entry]] = {
    "origin": [
        Container("runc", f"gone-{IDS['origin']}", "/nonexistent"),
        AtPodman(NUMBER, "runc", "/nonexistent", 999990, 4245),
        AtUnit("gone.service", DROP_IN, "there"),
        Images(f"/dev/shm/migrate-{IDS['origin']}"),
        Images(f"/dev/shm/migrate-{IDS['origin']}", 1048575),
        Isolation(IDS["origin"]),
        Freezer(f"/sys/fs/cgroup/system.slice/migrate-{IDS['origin']}"),
        Criu(999997, 4242),
        Limit(999998, 1111, 7, 256, 261),
        Stop(TASKS),
        EndedCalls(TASKS, ((999998, 999999, 7, 140732920755200, 139637976731650),)),
        Keeper(999995, 4243),
        Repair(TASKS, (71234, 71235)),
        Switch(WITHDRAWN),
        Switch(ALL_OF_IT),
    ],
    "destination": [
        Isolation(IDS["destination"]),
        Images(IMAGES),
        Directory("/nonexistent/a", "2049:131"),
        Copied("/nonexistent/a/.migrate-ba9876543210-0", "", "2049:132"),
        Copied("/nonexistent/a/b", "/nonexistent/a/.migrate-ba9876543210-1", "2049:132"),
        Copied("/nonexistent/a/d", "/nonexistent/a/.migrate-ba9876543210-2", "2049:132", "2049:140"),
        Muted(IDS["destination"]),
        OfPodman(NUMBER, "runc", "/nonexistent"),
        Joined("/nonexistent"),
        Arriving("crun", f"gone-{IDS['destination']}", "/nonexistent"),
        OfUnit("gone.service", DROP_IN, "here", "/run/gone.pid", 0, 33, 0o644, 999990, 4246),
        Switch(PLACED),
        Sockets(("/nonexistent/run/one.sock", "/nonexistent/run/two.sock")),
        OnTheWay(("/nonexistent/c", "/nonexistent/c/d")),
        Routes(("1c00000018000000", "00ff")),
        Tree((), MARK, IMAGES),
        Criu(999994, 4244),
        Tree(((999993, 2222), (999992, 2223)), MARK, IMAGES),
        Tree(((999991, 2224),), MARK, IMAGES, "bare"),
    ],
}
#: What is said of the undo, the last first; on the origin what everybody waits for comes before.
SAID = {
    "origin": [
        "switch 'address' undone",
        "switch 'address' undone",
        "packet filter removed",
        "0 connections resumed",
        "keeper ended",
        "0 of 1 system calls begin again",
        "0 tasks continued, 2 had ended",
        "limit 7 of process 999998 as before",
        f"/sys/fs/cgroup/system.slice/migrate-{IDS['origin']} thawed and removed",
        "gone.service is as before",
        f"container {NUMBER[:12]} of podman stays",
        f"container gone-{IDS['origin']} of runc stays",
        "CRIU ended",
        *[f"images removed from /dev/shm/migrate-{IDS['origin']}"] * 2,
    ],
    "destination": [
        "restored tasks killed",
        "restored tasks killed",
        "CRIU ended",
        "restored tasks killed",
        "switch 'address' undone",
        f"crun knows no container gone-{IDS['destination']}",
        f"podman knows no container {NUMBER[:12]}",
        "2 routes removed",
        "2 directories removed if they were empty",
        "0 unix sockets removed",
        "gone.service is as before",
        "network left",
        "new interfaces speak",
        "/nonexistent/a/d: its directory is gone",
        "/nonexistent/a/b: its directory is gone",
        "/nonexistent/a/.migrate-ba9876543210-0: its directory is gone",
        "/nonexistent/a removed if it was empty",
        f"images removed from {IMAGES}",
        "packet filter removed",
    ],
}


def read(role: str) -> records.Record:
    return records.parse((GOLDEN / role).read_bytes(), IDS[role])


def test_each_kind_is_in_one_of_them() -> None:
    assert {type(entry) for noted in NOTED.values() for entry in noted} == set(KINDS)


@pytest.mark.parametrize("role", NOTED)
def test_read(role: str) -> None:
    record = read(role)
    assert record.entries == NOTED[role]
    assert (record.role, record.pid, record.owner) == (role, 999998, (999999, 5))


def test_an_address_is_noted_as_it_was_read() -> None:
    """In whichever version; the objects of this one say it again."""
    for details in (WITHDRAWN, ALL_OF_IT):
        assert switch.from_details(details).details() == details
    (one,) = map(Setup.read, ALL_OF_IT["found"])
    assert [str(route) for route in one.routes] == ["192.0.2.0/24 proto kernel metric 100 src 192.0.2.77"]
    assert (one.until, one.unread) == (Until(70000.5, 69000.5), "")


def test_what_else_it_says() -> None:
    origin, destination = read("origin"), read("destination")
    assert (origin.state, origin.destination_pid, origin.other_host) == ("SWITCHED", 999998, "root@there")
    assert (origin.reach["port"], origin.reach["identity"]) == (2222, "/root/.ssh/key")
    assert Reach.read(origin.reach, origin.other_host).transport == "paramiko"
    assert (destination.state, destination.destination_pid) == ("RESTORED", 999993)


@pytest.mark.parametrize("role", NOTED)
def test_written_again(role: str) -> None:
    """What a line does not say yet is said as what it means there: the last keys, of value ""."""
    lines = [line for line in (GOLDEN / role).read_bytes().splitlines() if b'"did"' in line]
    for entry, line in zip(NOTED[role], lines, strict=True):
        written, known = entry.line(), json.loads(line)
        assert json.dumps({key: written[key] for key in known}).encode() == line
        assert not any(written[key] for key in written.keys() - known)
        assert [*written][: len(known)] == [*known]


@pytest.mark.parametrize("role", NOTED)
def test_undone(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would change this host's network is only asked for; all else is of processes and files that are none."""
    asked: list[Any] = []

    def told(name: str) -> Callable[[Any], None]:
        return lambda what: asked.append((name, what))

    class Address:
        def __init__(self, *_: Any, **more: Any) -> None:
            asked.append(("switch", more))

        undo = told("switch undo")

    monkeypatch.setattr(isolation, "remove", told("isolation"))
    monkeypatch.setattr(same_path, "remove", told("routes"))
    monkeypatch.setattr(switch, "make", Address)
    said, problems = undo.roll_back(read(role))
    assert (said, problems) == (SAID[role], [])
    network = dict(one for one in asked if one[0] != "switch undo")
    assert network["isolation"] == IDS[role]
    if role == "origin":
        found = [one["found"] for name, one in asked if name == "switch"]
        assert found == [ALL_OF_IT["found"], WITHDRAWN["found"]]
    else:
        assert network["switch"] == {"placed": PLACED["placed"]}
        assert network["routes"] == [bytes.fromhex("1c00000018000000"), b"\0\xff"]


# --- what is wrong with one entry is its own matter -------------------------------------------------------

BAD = [
    {"did": "something-new", "path": "/x"},
    {"did": "isolation"},
    {"did": "images"},
    {"did": "sockets", "paths": 5},
    {"did": "sockets"},
    {"did": "on-the-way", "paths": 5},
    {"did": "routes", "routes": ["no hex"]},
    {"did": "switch"},
    {"did": "switch", "details": {}},
    {"did": "tree", "tasks": []},
    {"did": "directory"},
]


@pytest.mark.parametrize("line", BAD, ids=json.dumps)
def test_one_that_cannot_be_undone_stops_none_of_the_others(
    line: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [b'{"did": "images", "path": "/nonexistent/' + name + b'"}' for name in (b"a", b"b")]
    first = b'{"role": "destination", "pid": 1, "other_host": "x"}'
    data = b"\n".join([first, good[0], json.dumps(line).encode(), good[1], b""])
    monkeypatch.setattr(isolation, "remove", lambda _: None)
    said, problems = undo.roll_back(records.parse(data, IDS["origin"]))
    assert said == ["images removed from /nonexistent/b", "images removed from /nonexistent/a"]
    assert len(problems) == 1 and problems[0].startswith(f"{line['did']}: this version cannot undo it: ")


@pytest.mark.parametrize("kind", KINDS)
def test_who_relies_on_one_that_lacks_something_is_told(kind: type[Entry]) -> None:
    record = records.Record(IDS["origin"], entries=[Images("/x"), Unreadable(kind.word, "it is short")])
    with pytest.raises(MigrateError, match=f"what was noted as {kind.word} cannot be read: it is short"):
        record.of(kind)
    assert record.named(kind)[-1:] == record.entries[1:] and record.entries[1] not in record.but(kind)


def test_a_tree_of_a_runtime_that_is_not_known_here_is_left_and_told() -> None:
    tree = Tree((), "MIGRATE_TEST=none", "/nonexistent", "owl")
    data = (
        b'{"role": "destination", "pid": 1, "other_host": "x"}\n' + json.dumps(tree.line()).encode() + b"\n"
    )
    said, problems = undo.roll_back(records.parse(data, IDS["destination"]))
    assert (said, problems) == ([], ["tree: no runtime is called owl"])


#: JSON values, of which none is what a field of another type may have.
VALUES: list[Any] = [
    "abc",
    "a\0b",
    7,
    1 << 64,
    True,
    None,
    0.5,
    ["a"],
    [7],
    [[7]],
    [[7, 1]],
    [[7, 1, 2, 3, 4]],
    {},
]
#: Type of a field as it is annotated -> those of VALUES that it may have.
FITTING: dict[str, list[Any]] = {
    "str": ["abc"],
    "int": [7],
    "tuple[str, ...]": [["a"]],
    "tuple[Identity, ...]": [[[7, 1]]],
    "tuple[tuple[int, int, int, int, int], ...]": [[[7, 1, 2, 3, 4]]],
    "Literal[True] | tuple[int, ...]": [True, [7]],
    "Mapping[str, Any]": [{}],
}
FIELDS = [(kind, one.name, str(one.type)) for kind in KINDS for one in dataclasses.fields(kind)]


@pytest.mark.parametrize(("kind", "name", "annotated"), FIELDS)
def test_what_a_field_may_have_is_what_its_type_says(kind: type[Entry], name: str, annotated: str) -> None:
    """Of each field of each kind: nobody keeps a list of them beside the classes."""
    whole = {one: FITTING[of][0] for its, one, of in FIELDS if its is kind}
    for value in VALUES:
        if value in FITTING[annotated] and any(type(value) is type(one) for one in FITTING[annotated]):
            assert kind.read(whole | {name: value}).kind == kind.word
        else:
            with pytest.raises(ValueError, match=f"{name} makes no sense"):
                kind.read(whole | {name: value})


@pytest.mark.parametrize("line", ['"sockets", "paths": "abc"', '"calls", "tasks": [], "calls": 7'])
def test_a_field_of_another_type_cannot_be_undone_and_harms_no_other(line: str) -> None:
    whole = '{"id": "x", "role": "origin", "pid": 7, "other_host": "h"}\n{"did": "images", "path": "/none"}\n'
    record = records.parse(f'{whole}{{"did": {line}}}\n'.encode(), IDS["origin"])
    assert [type(one) for one in record.entries] == [Images, Unreadable]
    undone, problems = undo.roll_back(record)
    assert undone == ["images removed from /none"]
    assert len(problems) == 1 and "makes no sense" in problems[0]


def test_a_container_of_podman_that_nobody_watched() -> None:
    """Its conmon had ended before: nothing is ended in its place."""
    AtPodman(NUMBER, "runc", "/nonexistent", 0, 0).watch_no_more()
