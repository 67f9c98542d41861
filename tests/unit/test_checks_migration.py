from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate import checks_obstacles, ports
from migrate.checks import Options, files_to_copy, refusals, service_addresses
from migrate.errors import Reason
from migrate.pb.session_pb2 import (
    File,
    HostInventory,
    Interface,
    Obstacle,
    ProcessInventory,
    Task,
    TcpSocket,
)

LISTEN, ESTABLISHED = 10, 1
SERVICE, PEER = "10.77.1.100", "10.77.2.1"
GB = 1 << 30


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def listener(address: str = SERVICE, port: int = 80, **more: Any) -> TcpSocket:
    zero = bytes(len(ip(address)))
    return TcpSocket(pid=100, fd=3, state=LISTEN, local_ip=ip(address), local_port=port, peer_ip=zero, **more)


def connection(
    local: str = SERVICE, port: int = 80, peer: str = PEER, peer_port: int = 4000, **more: Any
) -> TcpSocket:
    return TcpSocket(
        pid=100,
        fd=4,
        state=more.pop("state", ESTABLISHED),
        local_ip=ip(local),
        local_port=port,
        peer_ip=ip(peer),
        peer_port=peer_port,
        congestion="cubic",
        **more,
    )


def task(pid: int = 100, **more: Any) -> Task:
    fields: dict[str, Any] = {"ppid": 1, "sid": pid, "pgid": pid, "comm": "nginx", "tids": [pid]}
    return Task(pid=pid, **(fields | more))


def process(**more: Any) -> ProcessInventory:
    fields: dict[str, Any] = {
        "root_pid": 100,
        "tasks": [task()],
        "sockets": [listener(), connection()],
        "needed_pids": [100],
        "memory_bytes": 50 << 20,
        "driver_pids": [500, 400, 1],
        "files": [
            File(path="/srv", use=File.WORKING_DIRECTORY, exists=True, directory=True),
            mapped(),
            File(path="/var/log/a.log", use=File.OPEN, size_bytes=7, exists=True, regular=True, written=True),
        ],
    }
    return ProcessInventory(**(fields | more))


def mapped(path: str = "/usr/lib/libc.so.6", build_id: bytes = b"\xab" * 20, **more: Any) -> File:
    fields = {"use": File.MAPPED, "size_bytes": 1900, "exists": True, "regular": True}
    return File(path=path, build_id=build_id, **(fields | more))


def host(name: str, number: int, **more: Any) -> HostInventory:
    own = f"10.77.1.{number}"
    interfaces = [
        Interface(name="lo", addresses=["127.0.0.1/8", "::1/128"], up=True),
        Interface(name="eth0", addresses=[f"{own}/24", f"fd77:1::{number}/64"], up=True),
    ]
    if name == "origin":
        interfaces[1].addresses.append(f"{SERVICE}/32")
    fields: dict[str, Any] = {
        "hostname": name,
        "version": "0.1.0",
        "root": True,
        "kernel": "6.18.44",
        "machine": "x86_64",
        "criu_version": "4.2.1",
        "image_space_bytes": 4 * GB,
        "memory_available_bytes": 8 * GB,
        "congestion_algorithms": ["cubic", "reno"],
        "interfaces": interfaces,
        "own_addresses": [own],
        "pid_max": 32768,
        "cpu_features": ["avx2", "sse4_2"],
    }
    return HostInventory(**(fields | more))


def origin(**more: Any) -> HostInventory:
    return host("origin", 1, **more)


def destination(**more: Any) -> HostInventory:
    return host("destination", 2, **({"files": list(process().files)} | more))


def reasons(
    of: ProcessInventory | None = None,
    here: HostInventory | None = None,
    there: HostInventory | None = None,
    **options: Any,
) -> list[Reason]:
    return refusals(of or process(), here or origin(), there or destination(), Options(**options))


def only(found: list[Reason]) -> Reason:
    assert len(found) == 1, found
    return found[0]


def test_nothing_stands_in_the_way() -> None:
    assert reasons() == []


def test_all_reasons_at_once() -> None:
    found = reasons(
        process(memory_bytes=10 * GB, tasks=[task(sid=7)]),
        origin(root=False),
        destination(files=[], taken_pids=[100], criu_version=""),
    )
    assert {one.code for one in found} == {
        "not-root", "criu-missing", "shell-job", "pid-taken", "no-working-directory", "no-file",
        "no-image-space", "no-memory",
    }  # fmt: skip
    assert all(one.text and one.remedy and one.role in ("origin", "destination") for one in found)


@pytest.mark.parametrize(
    ("role", "field", "value", "code"),
    [
        ("origin", "root", False, "not-root"),
        ("destination", "root", False, "not-root"),
        ("origin", "criu_version", "", "criu-missing"),
        ("destination", "criu_version", "3.17.1", "criu-too-old"),
        ("destination", "criu_version", "4.1.1", "criu-too-old"),
        ("destination", "criu_problem", "the vDSO is unknown", "criu-broken"),
        ("destination", "version", "0.0.9", "version"),
        ("destination", "machine", "aarch64", "machine"),
        ("destination", "cpu_features", ["sse4_2"], "processor"),
        ("destination", "congestion_algorithms", ["reno"], "congestion"),
        ("destination", "problems", ["the packet filter cannot be used"], "host-problem"),
        ("origin", "image_space_bytes", 1 << 20, "no-image-space"),
        ("destination", "memory_available_bytes", 60 << 20, "no-memory"),
        ("destination", "pid_max", 90, "pid-too-high"),
    ],
)
def test_a_host_that_cannot(role: str, field: str, value: object, code: str) -> None:
    hosts = {"origin": origin, "destination": destination}
    changed = {role: hosts[role](**{field: value})}
    reason = only(reasons(None, changed.get("origin"), changed.get("destination")))
    assert (reason.code, reason.role) == (code, role)


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


def test_session_of_another_pid_namespace() -> None:
    for shell_job in (False, True):
        assert "setsid" in only(reasons(process(tasks=[task(sid=0)]), shell_job=shell_job)).remedy


def test_taken_pids() -> None:
    there = destination(taken_pids=[100], taken_by={100: "cron"})
    reason = only(reasons(None, None, there))
    assert reason.text == "PID 100, which nginx has, is taken by cron"
    assert reasons(None, None, there, new_pid_namespace_possible=True) == []


# --- files ----------------------------------------------------------------------------------------------


def with_file(here: File, there: File | None, **options: Any) -> list[Reason]:
    return reasons(process(files=[here]), None, destination(files=[there] if there else []), **options)


def test_missing_files() -> None:
    library = mapped()
    reason = only(with_file(library, None))
    assert (reason.code, reason.role) == ("no-file", "destination")
    assert library.path in reason.text and "dpkg -S" in reason.remedy
    assert with_file(library, None, copy_files=True) == []


def test_missing_directory() -> None:
    directory = File(path="/srv", use=File.WORKING_DIRECTORY, directory=True)
    reason = only(with_file(directory, None))
    assert reason.code == "no-working-directory" and "mkdir -p /srv" in reason.remedy
    assert with_file(directory, None, copy_files=True) == []
    root = File(path="/jail", use=File.ROOT_DIRECTORY, directory=True)
    reason = only(with_file(root, None, copy_files=True))
    assert reason.code == "no-directory" and "--copy-files" not in reason.remedy


def test_directories_are_made_before_what_is_in_them() -> None:
    paths = ("/srv/a/b/file", "/srv/a/b", "/srv/a")
    files = [
        File(path=path, use=File.OPEN, directory="file" not in path, regular="file" in path) for path in paths
    ]
    found = files_to_copy(process(files=files), HostInventory())
    assert [one.path for one in found] == ["/srv/a", "/srv/a/b", "/srv/a/b/file"]


def test_another_build() -> None:
    reason = only(with_file(mapped(), mapped(build_id=b"\xcd" * 20), copy_files=True))
    assert reason.code == "other-build" and "cdcdcd" in reason.text and "ababab" in reason.text
    assert only(with_file(mapped(), mapped(build_id=b""))).code == "other-build"


def test_build_id_decides_over_size() -> None:
    assert with_file(mapped(), mapped(size_bytes=1)) == []
    assert only(with_file(mapped(build_id=b""), mapped(build_id=b"", size_bytes=1))).code == "other-file"


def log(**more: Any) -> File:
    fields = {"use": File.OPEN, "size_bytes": 7, "exists": True, "regular": True}
    return File(path="/var/log/a.log", **(fields | more))


def test_open_files_go_by_size() -> None:
    assert with_file(log(), log()) == []
    assert "7 bytes" in only(with_file(log(), log(size_bytes=8))).text
    # CRIU does not compare a log that is only appended to.
    assert with_file(log(append_only=True, written=True), log(size_bytes=8)) == []


def test_copying_replaces_only_what_the_process_writes() -> None:
    assert with_file(log(written=True), log(size_bytes=8), copy_files=True) == []
    assert only(with_file(log(), log(size_bytes=8), copy_files=True)).code == "other-file"
    here = process(files=[log(written=True), mapped(), mapped("/usr/lib/new.so")])
    there = destination(files=[log(size_bytes=8), mapped(build_id=b"\xcd" * 20)])
    assert [one.path for one in files_to_copy(here, there)] == ["/var/log/a.log", "/usr/lib/new.so"]


def test_one_reason_for_a_file_used_twice() -> None:
    files = [mapped(use=File.EXECUTABLE), mapped()]
    assert len(reasons(process(files=files), None, destination(files=[]))) == 1


def test_kind_of_file() -> None:
    reason = only(with_file(log(), log(regular=False, directory=True)))
    assert reason.text == "/var/log/a.log is a directory there and a file at the origin"


# --- sockets and addresses ------------------------------------------------------------------------------


def test_service_addresses() -> None:
    sockets = [
        listener("0.0.0.0"), listener("::"), listener("127.0.0.1"), listener("::1"), connection(),
        connection("fd77:1::100", peer="fd77:2::1"), connection(peer_port=5),
    ]  # fmt: skip
    found = service_addresses(process(sockets=sockets, other_addresses=["10.77.1.101", "127.0.0.2"]))
    assert found == [SERVICE, "fd77:1::100", "10.77.1.101"]


def test_address_of_the_host_itself() -> None:
    sockets = [listener("0.0.0.0"), connection("10.77.1.1")]
    for here in (origin(), origin(own_addresses=[], ssh_addresses=["10.77.1.1"])):
        reason = only(reasons(process(sockets=sockets), here))
        assert (reason.code, reason.role) == ("address-of-host", "origin")
        assert "10.77.1.1:80 - 10.77.2.1:4000" in reason.text
        assert "ip addr add ADDRESS/24 dev eth0" in reason.remedy


def test_other_switches_leave_addresses_alone() -> None:
    assert reasons(process(sockets=[connection("10.77.1.1")]), switch="none") == []


def test_address_that_is_not_here() -> None:
    reason = only(reasons(process(sockets=[connection("10.77.1.50")])))
    assert reason.code == "address-missing"
    assert reason.remedy == "Add it: ip addr add 10.77.1.50/24 dev eth0"


def test_address_shared_with_another_process() -> None:
    other = connection(peer_port=4001, holder="sshd (PID 9)")
    reason = only(reasons(None, origin(taken_ports=[other])))
    assert reason.code == "address-shared" and "sshd (PID 9)" in reason.text


def test_address_already_there() -> None:
    there = destination()
    there.interfaces[1].addresses.append(f"{SERVICE}/32")
    reason = only(reasons(None, None, there))
    assert (reason.code, reason.role) == ("address-taken", "destination")
    assert reason.remedy == f"Remove it there: ip addr del {SERVICE}/32 dev eth0"


def test_destination_on_another_network() -> None:
    elsewhere = [Interface(name="eth0", addresses=["192.0.2.9/24"], up=True)]
    assert only(reasons(None, None, destination(interfaces=elsewhere))).code == "address-no-network"
    down = [Interface(name="eth0", addresses=["10.77.1.2/24"], up=False)]
    assert only(reasons(None, None, destination(interfaces=down))).code == "address-no-network"


def test_link_local() -> None:
    found = reasons(process(sockets=[connection("fe80::1", peer="fe80::2")]))
    assert [one.code for one in found] == ["address-link-local"]


def test_loopback_inside_the_tree() -> None:
    pair = [
        listener("127.0.0.1", 6379),
        connection("127.0.0.1", 6379, "127.0.0.1", 5000),
        connection("127.0.0.1", 5000, "127.0.0.1", 6379),
    ]
    assert reasons(process(sockets=pair)) == []
    reason = only(reasons(process(sockets=pair[:2])))
    assert reason.code == "peer-on-origin" and "127.0.0.1:6379 - 127.0.0.1:5000" in reason.text


def test_peer_on_the_origin_by_its_address() -> None:
    assert only(reasons(process(sockets=[connection(peer="10.77.1.1")]))).code == "peer-on-origin"


def test_peer_on_the_destination() -> None:
    reason = only(reasons(process(sockets=[connection(peer="10.77.1.2")])))
    assert (reason.code, reason.role) == ("peer-on-destination", "destination")


def test_ports_taken() -> None:
    taken = listener("0.0.0.0", holder="apache2 (PID 812)")
    reason = only(reasons(None, None, destination(taken_ports=[taken])))
    assert (reason.code, reason.role) == ("port-taken", "destination")
    assert reason.text == "port 80 is taken by apache2 (PID 812) on *:80"
    assert "sport = :80" in reason.remedy


def test_problems_of_sockets() -> None:
    problem = "10.77.1.100:80 - 10.77.2.1:4000: urgent data is waiting to be read"
    reason = only(reasons(process(sockets=[connection(problem=problem)])))
    assert reason.code == "socket" and "descriptor 4 of nginx (PID 100)" in reason.text
    assert "Try again" in reason.remedy


def test_a_thousand_of_one_kind() -> None:
    sockets = [connection(peer="10.77.1.2", peer_port=port) for port in range(1, 1001)]
    found = reasons(process(sockets=sockets))
    assert len(found) == 6 and found[-1].text == "and 995 more of this kind"


# --- obstacles ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", checks_obstacles.WORDS)
def test_every_obstacle_has_words(code: str) -> None:
    obstacle = Obstacle(code=code, pid=100, fd=5, what="/a {b}", size_bytes=2 << 20)
    reason = only(reasons(process(obstacles=[obstacle])))
    assert (reason.code, reason.role) == (code, "origin")
    assert "nginx (PID 100)" in reason.text and reason.remedy


def test_small_deleted_files_go_along() -> None:
    small = Obstacle(code="deleted-file", pid=100, what="/tmp/x", size_bytes=1 << 20)
    assert reasons(process(obstacles=[small])) == []
    large = Obstacle(code="deleted-file", pid=100, what="/tmp/x", size_bytes=(1 << 20) + 512)
    assert "/tmp/x" in only(reasons(process(obstacles=[large]))).text


def test_an_obstacle_of_a_newer_version() -> None:
    assert "warp" in only(reasons(process(obstacles=[Obstacle(code="new", pid=3, what="warp")]))).text


# --- ports ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (listener(), listener(), True),
        (listener(), listener("0.0.0.0"), True),
        (listener("0.0.0.0"), listener(), True),
        (listener("::"), listener(), True),
        (listener("::", ipv6_only=True), listener(), False),
        (listener("0.0.0.0"), listener("::"), True),
        (listener("0.0.0.0"), listener("::", ipv6_only=True), False),
        (listener("0.0.0.0"), listener("fd77:1::2"), False),
        (listener(), listener("10.77.1.2"), False),
        (listener(), listener(port=81), False),
        (listener(device="eth0"), listener(device="eth1"), False),
        (listener(device="eth0"), listener(), True),
        (connection(), listener("0.0.0.0"), True),
        (listener("0.0.0.0"), connection(), False),
        (connection(), connection(), True),
        (connection(), connection(peer_port=1), False),
        (listener(port=0), listener(port=0), False),
    ],
)
def test_clash(ours: TcpSocket, theirs: TcpSocket, expected: bool) -> None:
    assert ports.clash(ours, theirs) is expected


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
    for reason in refusals(of, here, there, Options(copy_files=copy, shell_job=shell)):
        assert reason.code and reason.role and reason.text and reason.remedy


def test_checks_touch_nothing() -> None:
    inputs = (process(), origin(), destination())
    before = [one.SerializeToString() for one in inputs]
    refusals(*inputs, Options())
    assert [one.SerializeToString() for one in inputs] == before
