"""What a tree takes by name, seen on real sockets of this host."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from inventories import connection, destination, listener, only, process, reasons

from migrate.checks import names as checks_names
from migrate.criu import unix_paths
from migrate.errors import Taken
from migrate.inventory import (
    found_sockets,
    momentary,
    names,
    namespaces,
    proc,
    sockets,
    terminals,
    unix_names,
    watches,
)
from migrate.inventory.described import there as describe_there
from migrate.inventory.descriptors import Descriptors
from migrate.inventory.files import Files
from migrate.inventory.of_proc import about
from migrate.pb.session_pb2 import File, Obstacle, ProcessInventory, TakenName
from migrate.processes import mounts, unix_diag
from tcpcp.criu.tree import HeldSocket

PORT = 45353


def udp(
    family: socket.AddressFamily, address: str, *, reuse: bool = False, six_only: bool = False
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, six_only)
    sock.bind((address, PORT))
    return sock


@pytest.mark.parametrize(
    ("address", "theirs", "taken"),
    [
        ("127.0.0.1", {"family": socket.AF_INET, "address": "0.0.0.0"}, True),
        ("127.0.0.1", {"family": socket.AF_INET, "address": "127.0.0.2"}, False),
        ("127.0.0.1", {"family": socket.AF_INET6, "address": "::"}, True),
        ("127.0.0.1", {"family": socket.AF_INET6, "address": "::", "six_only": True}, False),
        ("127.0.0.1", {"family": socket.AF_INET, "address": "127.0.0.1", "reuse": True}, True),
        ("0.0.0.0", {"family": socket.AF_INET, "address": "0.0.0.0", "reuse": True}, True),
        ("0.0.0.0", {"family": socket.AF_INET6, "address": "::", "reuse": True}, True),
        ("0.0.0.0", {"family": socket.AF_INET, "address": "127.0.0.1", "reuse": True}, True),
        ("127.0.0.1", {"family": socket.AF_INET, "address": "0.0.0.0", "reuse": True}, False),
        ("127.0.0.1", {"family": socket.AF_INET6, "address": "::", "reuse": True}, False),
        ("0.0.0.0", {"family": socket.AF_INET, "address": "224.0.0.251", "reuse": True}, False),
        ("224.0.0.251", {"family": socket.AF_INET, "address": "224.0.0.251", "reuse": True}, False),
    ],
)
def test_udp_ports(address: str, theirs: dict[str, object], taken: bool) -> None:
    with udp(socket.AF_INET, address, reuse=True) as ours:
        name = names.of_udp(ours, 1, 2)
    assert name is not None and (name.port, name.name) == (PORT, f"{address.replace('0.0.0.0', '*')}:{PORT}")
    with udp(**theirs):  # type: ignore[arg-type]
        found = names.taken([name])
        # Which of two sockets of IPv6 leaves IPv4 alone is seen when it is looked at.
        contested = names.contested([name])
    assert bool(found) is taken
    assert contested or not (taken and theirs.get("reuse"))  # else it is CRIU that cannot bind to it
    assert taken or not contested or theirs.get("six_only")
    if taken:
        reason = only(reasons(None, None, destination(taken_names=found)))
        assert reason.code == "udp-port-taken" and "PID" in reason.text and str(PORT) in reason.remedy


def test_an_unbound_udp_socket_and_a_raw_one_take_nothing() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unbound:
        assert names.of_udp(unbound, 1, 2) is None


def test_lines_of_the_kernel() -> None:
    line = "  77: 0100007F:14E9 00000000:0000 07 00000000:00000000 00:00000000 00000000  0  0 4711 2 0 0"
    found, inode = names.parse_udp(line)
    assert (found.local_ip, found.local_port, inode) == (bytes([127, 0, 0, 1]), 5353, 4711)
    six = "0: B80D0120000000000000000001000000:0035 0:0 07 0:0 0:0 0 0 0 12 2 0 0"
    assert names.parse_udp(six)[0].local_ip == socket.inet_pton(socket.AF_INET6, "2001:db8::1")


def test_paths_of_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        name = unix_names.of_unix(bound, str(path), 1, 2)
        assert name is not None and (name.kind, name.name) == (TakenName.PATH, str(path))
        found = names.taken([name])
        assert len(found) == 1 and found[0].holder and not found[0].occupied
        reason = only(reasons(None, None, destination(taken_names=found)))
        assert reason.code == "unix-path-taken" and found[0].holder in reason.text
    assert names.taken([name]) == []  # nobody has it any more
    path.unlink()
    assert names.taken([name]) == []
    path.write_text("a file")
    assert (
        only(reasons(None, None, destination(taken_names=names.taken([name])))).code == "unix-path-occupied"
    )
    folder = next(names.directories([name, name]))
    assert (folder.path, folder.use, folder.directory) == (str(tmp_path), File.SOCKET_DIRECTORY, True)


@pytest.mark.parametrize("copying", [False, True])
def test_a_socket_on_storage_that_both_hosts_share(tmp_path: Path, copying: bool) -> None:
    """Both would have one file, which CRIU replaces there, and which is missing here after a rollback."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "app.sock"))
        here = [*names.directories(of_sockets(bound).names)]
    there = [*describe_there(here)]
    ours = process(files=[*process().files, *here])
    reason = only(reasons(ours, None, destination(files=[*destination().files, *there]), copy_files=copying))
    assert reason.code == "unix-path-shared" and str(tmp_path) in reason.text and reason.remedy
    there[0].storage = "another one"
    assert reasons(ours, None, destination(files=[*destination().files, *there]), copy_files=copying) == []


def test_a_file_that_was_renamed_since(tmp_path: Path) -> None:
    first, now = tmp_path / "app.sock.new", tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(first))
        unchanged = unix_names.of_unix(bound, str(first), os.getpid(), 2)
        first.rename(now)
        name = unix_names.of_unix(bound, str(first), os.getpid(), 2)
    assert unchanged is not None and (unchanged.name, unchanged.bound_name) == (str(first), "")
    assert name is not None and (name.name, name.bound_name) == (str(now), str(first))
    assert (name.mode, name.uid) == (now.stat().st_mode, os.getuid())


def test_a_path_that_was_bound_by_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("app.sock")
        name = unix_names.of_unix(bound, "app.sock", 1, 2)
        assert name is not None and name.name == str(tmp_path / "app.sock")
        assert len(names.taken([name])) == 1
        (tmp_path / "app.sock").unlink()
        deleted = unix_names.of_unix(bound, "app.sock", 1, 2)
        assert deleted is not None and (deleted.name, deleted.mode) == (name.name, 0)


@pytest.mark.parametrize(
    ("name", "fails"),
    [
        ("r.sock", False),
        ("./r.sock", False),
        ("sub/r.sock", False),
        ("../here/r.sock", True),
        ("sub/../r.sock", True),
    ]
    + [("sub//r.sock", True), ("link/r.sock", True), ("r.sock.new", True)],
)
def test_relative_names_that_criu_cannot_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fails: bool
) -> None:
    """Its dump fails of them: the check, and the look in the freeze, refuse them. No absolute path is one."""
    (tmp_path / "here/sub").mkdir(parents=True)
    (tmp_path / "here/link").symlink_to("sub")
    monkeypatch.chdir(tmp_path / "here")
    with socket.socket(socket.AF_UNIX) as bound, socket.socket(socket.AF_UNIX) as absolute:
        bound.bind(name)
        absolute.bind(f"{tmp_path}/here/../here/other")
        if name.endswith(".new"):
            Path(name).rename("r.sock")
        found = of_sockets(bound, absolute)
        frozen = sockets.again([*map(held, (bound, absolute))], set()).obstacles
        Path(found.names[0].name).unlink()
        deleted = of_sockets(bound)
    wanted = ["unix-relative"] * fails
    assert [one.code for one in found.obstacles] == [one.code for one in frozen] == wanted
    assert [one.code for one in deleted.obstacles] == wanted
    assert all(name in one.what for one in frozen)
    if fails:
        reason = only(reasons(process(obstacles=found.obstacles), None, destination()))
        assert found.names[0].name in reason.text and "absolute path" in reason.remedy


@pytest.mark.parametrize("relative", [False, True])
def test_a_living_one_whose_name_ends_as_that_of_a_deleted_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    """CRIU takes off that end: an absolute one it would delete again, of a relative one its dump fails."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s (deleted)"
    name = path.name if relative else str(path)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(name)
        found = of_sockets(bound)
        path.unlink()
        deleted = of_sockets(bound)
    assert (found.names[0].name, found.names[0].mode & 0o777) == (str(path), 0o755)
    assert [one.code for one in found.obstacles] == ["unix-misread"] * relative
    assert found.names[0].bound_name == ("" if relative else name)
    if relative:
        reason = only(reasons(process(obstacles=found.obstacles), None, destination()))
        assert str(path) in reason.text and "absolute path" in reason.remedy
    assert (deleted.obstacles, deleted.names[0].name, deleted.names[0].mode) == ([], str(path), 0)


@pytest.mark.parametrize("last", [b"line\nfeed", b"back\\012", b"no\xfftext"])
def test_paths_that_cannot_be_printed(tmp_path: Path, last: bytes) -> None:
    """They are taken on the destination, and the directory is wanted there, as any other; or it is told why not."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.fsencode(tmp_path) + b"/" + last)
        found = of_sockets(bound)
    if b"\xff" in last:
        assert [(one.code, one.what) for one in found.obstacles] == [
            ("file-name", f"{tmp_path}/no\ufffdtext")
        ]
    else:
        assert [one.name for one in found.names] == [f"{tmp_path}/{last.decode()}"]
        assert [one.path for one in names.directories(found.names)] == [str(tmp_path)]


def test_a_deleted_file_is_made_again_where_somebody_else_may_have_one(tmp_path: Path) -> None:
    """CRIU binds to it and removes it then, and removes first whatever socket is there."""
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as deleted, socket.socket(socket.AF_UNIX) as theirs:
        deleted.bind(str(path))
        path.unlink()
        found = of_sockets(deleted).names
        assert names.taken(found) == [] and list(names.directories(found)) == []
        theirs.bind(str(path))
        reason = only(reasons(None, None, destination(taken_names=names.taken(found))))
        assert reason.code == "unix-path-taken" and f"PID {os.getpid()}" in reason.text


@pytest.mark.parametrize("there", ["one", "other", "", "a directory", "nowhere"])
def test_a_socket_bound_through_a_link(tmp_path: Path, there: str) -> None:
    """CRIU follows it, to a place at which nobody has looked, and which a rollback does not know."""
    link = tmp_path / "link"
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    link.symlink_to("one")
    bound_name, path = str(link / "app.sock"), str(tmp_path / "one/app.sock")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(bound_name)
        name = only(of_sockets(bound).names)
    assert (name.name, name.linked_name, name.bound_name) == (path, bound_name, "")
    if there != "one":
        link.unlink()
        link.mkdir() if there == "a directory" else link.symlink_to(there) if there else None
    found = names.taken([name])
    if there == "one":
        assert found == []
        unix_paths.require_same_places([name])
        return
    reason = only(reasons(None, None, destination(taken_names=found)))
    led_to = tmp_path / there if there in ("other", "nowhere") else link
    assert reason.code == "unix-path-elsewhere" and bound_name in reason.text
    assert f"made at {led_to}/app.sock there, and is at {path} here" in reason.text
    with pytest.raises(Taken, match="would be made at"):
        unix_paths.require_same_places([name])


def test_a_directory_of_a_socket_that_is_a_link_there(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "app.sock"))
        found = of_sockets(bound).names
    assert only(found).linked_name == "" and names.taken(found) == []
    folder.rename(tmp_path / "moved")
    folder.symlink_to("moved")
    assert only(names.taken(found)).elsewhere == str(tmp_path / "moved/app.sock")


def test_two_sockets_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        first.bind(str(path))
        path.unlink()
        second.bind(str(path))
        found = of_sockets(first, second).names
        assert [(one.name, bool(one.mode)) for one in found] == [(str(path), False), (str(path), True)]
        assert len(names.taken(found)) == 1
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        for sock, folder in ((first, "a"), (second, "b")):
            (tmp_path / folder).mkdir()
            monkeypatch.chdir(tmp_path / folder)
            sock.bind("svc.sock")
        found = of_sockets(first, second).names
        assert [one.name for one in found] == [f"{tmp_path}/a/svc.sock", f"{tmp_path}/b/svc.sock"]


def test_abstract_names_go_with_the_kind_of_socket() -> None:
    with socket.socket(socket.AF_UNIX) as bound, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        bound.bind("\0migrate-test")
        other.bind("\0migrate-test")
        name = unix_names.of_unix(bound, "@migrate-test", 1, 2)
        assert name is not None and name.kind == TakenName.ABSTRACT
        bound.close()
        assert names.taken([name]) == []
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("\0migrate-test")
        found = names.taken([name])
    assert only(reasons(None, None, destination(taken_names=found))).code == "unix-name-taken"


@pytest.mark.parametrize("abstract", [False, True])
def test_who_receives_datagrams_stays_and_another_one_is_there(tmp_path: Path, abstract: bool) -> None:
    address = "\0migrate-log" if abstract else str(tmp_path / "log")
    with dgram() as service, dgram() as ours:
        service.bind(address)
        ours.connect(address)
        found = of_sockets(ours)
        (name,) = found.names
        assert (name.kind, name.name) == (TakenName.RECEIVER, address.replace("\0", "@"))
        assert found.obstacles == []
        assert names.taken([name]) == []
        sending = process(names=[name])
        assert reasons(sending) == []
        (note,) = checks_names.notes(sending)
        assert name.name in note
    missing = names.taken([name])
    reason = only(reasons(sending, None, destination(taken_names=missing)))
    assert reason.code == "no-receiver" and name.name in reason.text and reason.remedy


def test_datagrams_that_are_lost_are_told() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.bind(("127.0.0.1", 0))
        (note,) = checks_names.notes(process(names=of_sockets(ours).names))
        assert f"UDP port {ours.getsockname()[1]} " in note and "lost" in note


def test_a_receiver_under_a_name_that_leads_to_it_by_a_link(tmp_path: Path) -> None:
    """As /dev/log is of systemd: it is the file that counts, whatever the name it was bound to."""
    asked = TakenName(kind=TakenName.RECEIVER, name=str(tmp_path / "log"))
    (tmp_path / "log").symlink_to("dev-log")
    with dgram() as service:
        service.bind(str(tmp_path / "dev-log"))
        assert names.taken([asked]) == []
    assert names.taken([asked]) == [asked]


def test_whom_no_name_leads_to_cannot_be_had_there(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with dgram() as service, dgram() as ours:
        service.bind(path)
        ours.connect(path)
        ours.bind(str(tmp_path / "ours"))
        service.connect(str(tmp_path / "ours"))  # it has only us, and would lose us
        assert [one.code for one in of_sockets(ours).obstacles] == ["unix-outside"]
    with dgram() as service, dgram() as ours:
        service.bind(path + "2")
        ours.connect(path + "2")
        Path(path + "2").unlink()
        assert [one.code for one in of_sockets(ours).obstacles] == ["unix-outside"]


def dgram() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def of_sockets(*socks: socket.socket) -> found_sockets.Sockets:
    """What the inventory says of a process that has these sockets, and only these."""
    return sockets.collect([*map(held, socks)])


def held(sock: socket.socket) -> HeldSocket:
    return HeldSocket(os.fstat(sock.fileno()).st_ino, [(os.getpid(), sock.fileno())])


def test_a_path_from_the_network_that_can_be_none() -> None:
    assert names.taken([TakenName(kind=TakenName.PATH, name="/run/a\0b")]) == []


# --- terminals -------------------------------------------------------------------------------------------------


def looked_at(pid: int = 0) -> tuple[Files, Descriptors]:
    files, tables = Files(), Descriptors()
    tables.add_process(pid or os.getpid(), files)
    return files, tables


def test_a_terminal_whose_number_is_in_use_there() -> None:
    master, slave = os.openpty()
    try:
        name = os.ttyname(slave)
        ours = [one for one in looked_at()[1].terminals() if one.name == name]
        assert [(one.kind, one.fd, f"/dev/pts/{one.port}") for one in ours] == [
            (TakenName.TERMINAL, master, name)
        ]
        found = names.taken(ours)
        reason = only(reasons(None, None, destination(taken_names=found)))
        assert reason.code == "terminal-taken" and name in reason.text and f"PID {os.getpid()}" in reason.text
    finally:
        os.close(master)
        os.close(slave)
    # Another process may have got the number meanwhile.
    found = names.taken(ours)
    assert not [one for one in found if f"PID {os.getpid()}" in one.holder]


def terminal(number: int) -> TakenName:
    return TakenName(kind=TakenName.TERMINAL, name=f"/dev/pts/{number}", port=number)


@pytest.mark.parametrize(
    ("wanted", "used", "too_high"),
    [([31], [], []), ([32], [], [32]), ([40], range(9), []), ([*range(40)], [], []), ([33, 0, 1], [], [33])],
)
def test_terminals_that_criu_does_not_reach(
    wanted: list[int], used: list[int], too_high: list[int], tmp_path: Path
) -> None:
    (tmp_path / "ptmx").touch()
    for number in used:
        (tmp_path / str(number)).touch()
    found = terminals.taken(map(terminal, wanted), str(tmp_path))
    assert [one.port for one in found] == too_high
    for one in found:
        assert only(reasons(None, None, destination(taken_names=[one]))).code == "terminal-too-high"


# --- interfaces ------------------------------------------------------------------------------------------------


def test_an_interface_that_is_not_there() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert names.of_interface(sock, 100, 5) is None
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        bound = names.of_interface(sock, 100, 5)
    assert bound is not None and (bound.kind, bound.name) == (TakenName.INTERFACE, "lo")
    assert reasons(process(names=[bound])) == []
    bound.name = "svc0"
    assert_missing("svc0", process(names=[bound]), process(sockets=[listener(device="svc0"), connection()]))


def test_an_interface_that_is_gone() -> None:
    """The kernel takes any number (SO_BINDTOIFINDEX), and knows no name for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, 62, 99_999)
        bound = names.of_interface(sock, 100, 5)
    assert_missing("interface 99999", process(names=[bound]))


def assert_missing(name: str, *processes: ProcessInventory) -> None:
    for asked in processes:
        reason = only(reasons(asked))
        assert (reason.code, reason.role) == ("no-interface", "destination") and name in reason.text


# --- what is watched -------------------------------------------------------------------------------------------

_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def watching(*paths: Path | str) -> Iterator[int]:
    fd = _LIBC.inotify_init1(os.O_CLOEXEC)
    try:
        assert all(_LIBC.inotify_add_watch(fd, os.fsencode(path), 0x100) > 0 for path in paths)
        yield fd
    finally:
        os.close(fd)


def test_watched_paths(tmp_path: Path) -> None:
    folder, file = tmp_path / "a b", tmp_path / "file"
    folder.mkdir()
    file.write_text("it is only watched")
    with watching(folder, file, "/dev/shm") as fd:
        assert {one.path for one in watches.of(os.getpid(), fd)} == {str(folder), str(file), "/dev/shm"}
        found = [one for one in looked_at()[0].found if one.use == File.WATCHED]
    assert {one.path for one in found} == {str(folder), str(file), "/dev/shm"}
    there = [File(path=one.path, use=one.use) for one in found]
    told = reasons(process(files=found), None, destination(files=there))
    assert {one.code for one in told} == {"no-watched-file"} and len(told) == 3
    assert reasons(process(files=found), None, destination(files=there), copy_files=True) == []
    for one, other in zip(found, there, strict=True):
        other.CopyFrom(one)
        other.size_bytes, other.mode = one.size_bytes + 1, 0
    assert reasons(process(files=found), None, destination(files=there)) == []


def test_what_no_path_leads_to(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("w"), watching(file) as fd:
        file.unlink()
        tables = looked_at()[1]
        mine = [one for one in tables.obstacles(set()) if one.fd == fd]
    assert [one.code for one in mine] == ["watch-nameless"]
    reason = only(reasons(process(obstacles=[Obstacle(code="watch-whole", pid=100, fd=3, what="8:1")])))
    assert "8:1" in reason.text and "fanotify" in reason.text


def test_a_watched_inode_whose_handle_opens_nothing(tmp_path: Path) -> None:
    """As on overlayfs: CRIU finds it in a few directories only, and else gives up when the tree is frozen."""
    for path, found in (("/etc/passwd", "/etc/passwd"), ("/etc", "/etc"), (str(tmp_path), "")):
        status = os.stat(path)  # noqa: PTH116
        device = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
        line = (
            f"inotify wd:1 ino:{status.st_ino:x} sdev:{device:x} fhandle-bytes:1 fhandle-type:f8 f_handle:00"
        )
        watch = watches._watch(watches.parse(line), {27: ("/", f"{device >> 20}:{device & 0xFFFFF}")})
        assert watch is not None and watch.path == found


def test_mounts_with_strange_names() -> None:
    lines = "27 1 254:0 / / rw - ext4 /dev/vda rw\n30 27 0:26 / /a\\040b\\134 rw shared:1 - tmpfs none rw\n"
    found = [(one.number, one.place, one.device, one.kind) for one in mounts.parse(lines)]
    assert found == [(27, "/", "254:0", "ext4"), (30, "/a b\\", "0:26", "tmpfs")]


# --- files of /proc and /sys -----------------------------------------------------------------------------------


def test_files_that_tell_of_a_process() -> None:
    assert about("/proc/meminfo") is None and about("/proc/12x/stat") is None
    assert about("/proc/12/task/13/stat") == (12, 13) and about("/proc/12 (deleted)") == (12, 0)
    pid, stop = os.getpid(), threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    paths = (
        f"{pid}/stat",
        f"{pid}/task/{pid}/stat",
        f"{pid}/task/{thread.native_id}/stat",
        "1/stat",
        "meminfo",
        f"{pid}/cmdline",
    )
    opened = [os.open(f"/proc/{path}", os.O_RDONLY) for path in paths]
    try:
        files, tables = looked_at()
        codes = {one.fd: one.code for one in tables.obstacles({pid}) if one.code.startswith("proc-")}
        assert codes == {opened[2]: "proc-thread", opened[3]: "proc-outside"}
        for fd in opened:
            os.read(fd, 3)
        codes = {one.fd: one.code for one in looked_at()[1].obstacles({pid}) if one.code == "proc-read"}
        assert list(codes) == opened[:2]
        assert [one.path for one in files.found if one.use == File.KERNEL_MADE] == ["/proc/meminfo"]
    finally:
        stop.set()
        for fd in opened:
            os.close(fd)


def test_a_process_that_has_ended_lends_its_number() -> None:
    child = os.fork()
    if not child:
        signal.pause()
    fd = os.open(f"/proc/{child}/stat", os.O_RDONLY)
    try:
        os.kill(child, 9)
        os.waitpid(child, 0)
        assert looked_at()[1].ended() == {child}
    finally:
        os.close(fd)


def test_what_the_kernel_makes_has_to_be_there_and_is_not_read() -> None:
    here = File(
        path="/sys/class/x", use=File.KERNEL_MADE, regular=True, size_bytes=4096, exists=True, mode=0o444
    )
    there = File(path=here.path, use=here.use)
    asked = process(files=[here])
    for copying in (False, True):
        reason = only(reasons(asked, None, destination(files=[there]), copy_files=copying))
        assert reason.code == "no-kernel-file"
    there.CopyFrom(here)
    there.content = b"read in another moment"
    assert reasons(asked, None, destination(files=[there])) == []


# --- sockets in a moment in which CRIU does not take them ------------------------------------------------------


def test_sockets_that_hold_something_back(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert momentary.of_other(sock) == ""
        sock.setsockopt(socket.IPPROTO_UDP, 1, 1)
        assert momentary.of_other(sock) == "udp-corked" and not momentary.is_ping(sock)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.bind((0, 0))
        assert momentary.of_other(sock) == ""
        sock.send(struct.pack("=IHHIIB3x", 20, 18, 0x301, 1, 0, 0))  # RTM_GETLINK, a dump
        assert momentary.of_other(sock) == "netlink-unread"
        assert sock.recv(1 << 16)  # it is still there


def test_a_unix_connection_that_nobody_has_accepted(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(str(tmp_path / "sock"))
        listening.listen()
        client.connect(str(tmp_path / "sock"))
        inode = os.fstat(client.fileno()).st_ino
        found = unix_diag.sockets()[inode]
        assert (found.waiting, found.unsent) == (True, 0)
        client.send(b"more than nothing")
        assert unix_diag.sockets()[inode].unsent
        with listening.accept()[0]:
            assert not unix_diag.sockets()[inode].waiting


def test_ping_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [TakenName(kind=TakenName.PING, pid=100, fd=3)]
    monkeypatch.setattr(names, "_may_ping", lambda: True)
    assert names.taken(asked) == []
    monkeypatch.setattr(names, "_may_ping", lambda: False)
    reason = only(reasons(None, None, destination(taken_names=names.taken(asked))))
    assert reason.code == "no-ping-sockets" and "sysctl" in reason.remedy


@pytest.mark.parametrize("code", ["unix-unaccepted", "netlink-unread", "udp-corked"])
def test_words_for_these(code: str) -> None:
    reason = only(reasons(process(obstacles=[Obstacle(code=code, pid=100, fd=3, what="/run/x")])))
    assert "nginx (PID 100)" in reason.text and reason.remedy.startswith("Try again")


def test_a_time_namespace_for_children_only() -> None:
    """CRIU restores a tree in one and dumps it again; another one for its children it does not."""
    its = {"time": "time:[1]", "time_for_children": "time:[1]", "net": "net:[5]"}
    assert namespaces.foreign(100, its, its) == []
    its["time_for_children"] = "time:[2]"
    assert [one.what for one in namespaces.foreign(100, its, its)] == ["time"]
    assert "time_for_children" in proc.namespaces(os.getpid())


def test_queues_of_listeners_that_the_destination_cuts() -> None:
    """What listen(2) asks for beyond net.core.somaxconn is cut without a word; 0: an agent that does not say."""
    unix = TakenName(kind=TakenName.PATH, name="/run/x", backlog=300)
    found = process(sockets=[listener(backlog=511), connection()], names=[unix])
    assert checks_names.notes_on_backlogs(found, destination(most_backlog=511)) == []
    assert checks_names.notes_on_backlogs(found, destination()) == []
    [note] = checks_names.notes_on_backlogs(found, destination(most_backlog=300))
    assert "10.77.1.100:80" in note and "/run/x" not in note and "511" in note
    [note] = checks_names.notes_on_backlogs(found, destination(most_backlog=128))
    assert "10.77.1.100:80" in note and "/run/x" in note and "net.core.somaxconn=511" in note
