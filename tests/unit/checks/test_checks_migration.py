"""What stands in the way of a migration: hosts, processes, obstacles; all of it at once, with a remedy."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inventories import (
    GB,
    PEER,
    SERVICE,
    destination,
    ip,
    only,
    origin,
    process,
    reasons,
    task,
)

import migrate
from migrate.checks import obstacles
from migrate.checks.reasons import refusals
from migrate.criu.worker import GHOST_LIMIT_BYTES
from migrate.inventory import ports
from migrate.pb.session_pb2 import (
    File,
    HostInventory,
    Interface,
    Obstacle,
    ProcessInventory,
    Task,
    TcpSocket,
)
from migrate.request import Along


def test_nothing_stands_in_the_way() -> None:
    assert reasons() == []


def test_all_reasons_at_once() -> None:
    found = reasons(
        process(memory_bytes=10 * GB, tasks=[task(sid=7)]),
        origin(),
        destination(root=False, files=[], taken_pids=[100], criu_version=""),
    )
    assert {one.code for one in found} == {
        "not-root", "criu-missing", "shell-job", "no-working-directory", "no-file",
        "no-image-space", "no-memory",
    }  # fmt: skip
    assert all(one.text and one.remedy and one.role in ("origin", "destination") for one in found)


@pytest.mark.parametrize(
    ("role", "field", "value", "code"),
    [
        ("destination", "root", False, "not-root"),
        ("origin", "criu_version", "", "criu-missing"),
        ("destination", "criu_version", "3.17.1", "criu-too-old"),
        ("destination", "criu_version", "4.1.1", "criu-too-old"),
        ("destination", "criu_problem", "the vDSO is unknown", "criu-broken"),
        ("destination", "machine", "aarch64", "machine"),
        ("destination", "cpu_features", ["sse4_2"], "processor"),
        ("destination", "congestion_algorithms", ["reno"], "congestion"),
        ("destination", "problems", ["the packet filter cannot be used"], "host-problem"),
        ("origin", "image_space_bytes", 1 << 20, "no-image-space"),
        ("destination", "memory_available_bytes", 60 << 20, "no-memory"),
    ],
)
def test_a_host_that_cannot(role: str, field: str, value: object, code: str) -> None:
    hosts = {"origin": origin, "destination": destination}
    changed = {role: hosts[role](**{field: value})}
    reason = only(reasons(None, changed.get("origin"), changed.get("destination")))
    assert (reason.code, reason.role) == (code, role)


def test_a_place_that_criu_cannot_write_to_is_named_with_what_helps() -> None:
    said = "Fail to make dir /tmp/.criu.move_mount_set_group.Yx: Read-only file system"
    reason = only(reasons(None, origin(criu_problem=said), None))
    assert (reason.code, reason.role) == ("criu-broken", "origin")
    assert said in reason.text and "kernel" not in reason.text
    assert "remount,rw /tmp" in reason.remedy


@pytest.mark.parametrize("version", ["0.0.9", "0.2.0", ""])
def test_another_version_of_migrate_is_no_reason(version: str) -> None:
    """Whether the two understand each other was settled in their hellos, by the protocols."""
    assert reasons(None, None, destination(version=version)) == []


def test_newer_criu_is_welcome() -> None:
    assert reasons(None, origin(criu_version="5.0"), destination(criu_version="4.10")) == []


def test_same_host() -> None:
    me = origin(taken_pids=[])
    assert "same-host" in {one.code for one in reasons(None, me, me)}


def test_ourselves_and_special_processes() -> None:
    assert only(reasons(process(driver_pids=[500, 100, 1]))).code == "self"
    assert only(reasons(process(tasks=[task(kernel_thread=True, sid=0)]))).code == "kernel-thread"
    assert only(reasons(process(tasks=[task(zombie=True, sid=7)]))).code == "zombie"
    terminal = Obstacle(code="terminal", pid=1, what="/dev/pts/0")
    codes = {one.code for one in reasons(process(root_pid=1, tasks=[task(1)], obstacles=[terminal]))}
    assert codes == {"init", "self"}


def test_shell_job() -> None:
    shell = process(tasks=[task(sid=77)])
    reason = only(reasons(shell))
    assert reason.code == "shell-job" and "77" in reason.text and "--shell-job" in reason.remedy
    assert reasons(shell, shell_job=True) == []
    shell.session_ended = True
    assert reasons(shell) == []


def test_session_of_another_pid_namespace() -> None:
    for shell_job in (False, True):
        assert "setsid" in only(reasons(process(tasks=[task(sid=0)]), shell_job=shell_job)).remedy


# --- obstacles ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", obstacles.WORDS)
def test_every_obstacle_has_words(code: str) -> None:
    obstacle = Obstacle(code=code, pid=100, fd=5, what="/a {b}", size_bytes=5 * GB)
    reason = only(reasons(process(obstacles=[obstacle])))
    assert (reason.code, reason.role) == (code, "origin")
    assert "nginx (PID 100)" in reason.text and reason.remedy


def test_small_deleted_files_go_along() -> None:
    small = Obstacle(code="deleted-file", pid=100, what="/tmp/x", size_bytes=64 << 20)
    assert reasons(process(obstacles=[small, small])) == []
    large = Obstacle(code="deleted-file", pid=100, what="/tmp/x", size_bytes=GHOST_LIMIT_BYTES + 512)
    assert "/tmp/x" in only(reasons(process(obstacles=[large]))).text
    # They are in the images, and take their room.
    tight = destination(image_space_bytes=(50 + 32 + 60) << 20)
    assert only(reasons(process(obstacles=[small, small]), None, tight)).code == "no-image-space"
    assert reasons(None, None, tight) == []
    assert obstacles.notes(process(obstacles=[small])) == []
    more = Obstacle(code="deleted-file", pid=100, what="/tmp/y", size_bytes=512)
    assert "64.0 MiB" in only(obstacles.notes(process(obstacles=[small, more])))


def test_an_obstacle_of_a_newer_version() -> None:
    assert "warp" in only(reasons(process(obstacles=[Obstacle(code="new", pid=3, what="warp")]))).text


@pytest.mark.parametrize("what", ["anon_inode:[io_uring]", "anon_inode:[userfaultfd]"])
def test_advice_for_io_uring_is_for_that_alone(what: str) -> None:
    found = Obstacle(code="anonymous", pid=100, fd=5, what=what)
    assert ("io_uring" in only(reasons(process(obstacles=[found]))).remedy) == ("io_uring" in what)


# --- nothing makes the checks fail ----------------------------------------------------------------------


addresses = st.sampled_from(
    [SERVICE, PEER, "10.77.1.1", "10.77.1.2", "127.0.0.1", "::", "0.0.0.0", "fe80::1"]
)
sockets_ = st.builds(
    TcpSocket,
    state=st.integers(1, 12),
    local_ip=addresses.map(ip),
    peer_ip=addresses.map(ip),
    local_port=st.integers(0, 3),
    peer_port=st.integers(0, 3),
    problem=st.sampled_from(["", "x: state SYN_SENT cannot be passed"]),
)
files_ = st.builds(
    File,
    path=st.sampled_from(["/a", "/b"]),
    use=st.integers(0, 5),
    size_bytes=st.integers(0, 2),
    regular=st.booleans(),
    exists=st.booleans(),
)
processes = st.builds(
    ProcessInventory,
    root_pid=st.integers(0, 3),
    tasks=st.lists(st.builds(Task, pid=st.integers(0, 3), sid=st.integers(0, 3)), max_size=3),
    sockets=st.lists(sockets_, max_size=5),
    files=st.lists(files_, max_size=4),
    obstacles=st.lists(st.builds(Obstacle, code=st.sampled_from(["terminal", "zzz"])), max_size=2),
)
hosts_ = st.builds(
    HostInventory,
    root=st.booleans(),
    criu_version=st.sampled_from(["", "4.2.1", "nonsense"]),
    taken_pids=st.lists(st.integers(0, 3), max_size=2),
    taken_ports=st.lists(sockets_, max_size=2),
    files=st.lists(files_, max_size=4),
    interfaces=st.just([Interface(name="eth0", addresses=["10.77.1.1/24", "fe80::1/64"], up=True)]),
)


@given(st.lists(sockets_, max_size=6), sockets_)
def test_claims_answer_as_each_socket_would(ours: list[TcpSocket], theirs: TcpSocket) -> None:
    assert ports.Claims(ours).clash(theirs) is any(ports.clash(one, theirs) for one in ours)


@given(processes, hosts_, hosts_, st.booleans(), st.booleans())
def test_any_inventories_give_whole_reasons(
    of: ProcessInventory, here: HostInventory, there: HostInventory, copy: bool, shell: bool
) -> None:
    for reason in refusals(of, here, there, Along(copy_files=copy, shell_job=shell)):
        assert reason.code and reason.role and reason.text and reason.remedy


def test_what_the_user_has_said_is_in_one_place() -> None:
    """A switch more is a line of the arguments and a field of the request: nobody copies that for the checks."""
    root = Path(migrate.__file__).parent
    fields = {one.name for one in dataclasses.fields(Along)}
    nodes = [node for path in root.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    records = [node for node in nodes if isinstance(node, ast.ClassDef)]
    their = [
        {ast.unparse(one.target) for one in node.body if isinstance(one, ast.AnnAssign)} for node in records
    ]
    assert sum(len(fields & one) > 1 for one in their) == 1


def test_checks_touch_nothing() -> None:
    inputs = (process(), origin(), destination())
    before = [one.SerializeToString() for one in inputs]
    refusals(*inputs, Along())
    assert [one.SerializeToString() for one in inputs] == before


def test_memory_that_is_locked_on_fault() -> None:
    """All of it is made after the move: a note says how much, and there must be room."""
    locked = [Obstacle(code="locked-on-fault", pid=100, size_bytes=GB)]
    assert reasons(process(obstacles=locked)) == []
    [note] = obstacles.notes(process(obstacles=locked))
    assert "MLOCK_ONFAULT" in note and "1.0 GiB" in note
    locked[0].size_bytes = 8 * GB
    assert only(reasons(process(obstacles=locked))).code == "no-memory"
