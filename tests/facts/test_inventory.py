"""What is found out about real processes, each started by its test in a network namespace of its own."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from netns import Namespace, eventually
from programs import program

from migrate import checks, inventory
from migrate.checks.obstacles import NOTES, notes
from migrate.errors import KernelError, Refused
from migrate.inventory import described, of_its_session, open_files, proc, waiters
from migrate.pb.session_pb2 import File, ProcessInventory, Task
from migrate.processes.chosen import Subject
from migrate.request import Along
from tcpcp.criu import tree
from tcpcp.errors import KernelError as TcpcpKernelError
from tcpcp.kernel import diag
from tcpcp.kernel.pidfd import Lender, borrow

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces")


def codes(found: ProcessInventory) -> list[tuple[str, str]]:
    return sorted((one.code, one.what) for one in found.obstacles)


def only_code(found: ProcessInventory) -> str:
    assert len(found.obstacles) == 1, found.obstacles
    return found.obstacles[0].code


PAIR = """
server = socket.create_server(("127.0.0.1", 0))
ours = socket.create_connection(server.getsockname())
theirs, _ = server.accept()
"""


def test_the_whole_tree(namespace: Namespace) -> None:
    code = """
def child():
    if os.fork() == 0:
        threading.Thread(target=signal.pause, daemon=True).start()
        if os.fork() == 0: signal.pause()
        time.sleep(0.05); ready()
threading.Thread(target=child).start()
signal.pause()
"""
    with program(code) as pid:
        pids = tree.tasks(pid)
        assert pids[0] == pid and len(pids) == 3
        assert [proc.stat(one).ppid for one in pids[1:]] == pids[:2]
        found = inventory.process(pid)
        assert [one.pid for one in found.tasks] == pids
        assert len(found.tasks[1].tids) == 2 and found.tasks[1].tids[0] == pids[1]
        assert {tid for one in found.tasks for tid in one.tids} == set(found.needed_pids)


def test_sockets_of_a_tree_and_who_holds_them(namespace: Namespace) -> None:
    with program(PAIR + "os.dup(ours.fileno())\nif os.fork() == 0: signal.pause()\nready()") as pid:
        held = tree.tcp_sockets(tree.tasks(pid))
        assert [len(one.holders) for one in held] == [2, 4, 2]
        table = {one.inode: one for one in diag.tcp()}
        assert sorted(table[one.inode].state for one in held) == [1, 1, 10]
        found = inventory.process(pid)
        assert {one.inode for one in found.sockets} == {one.inode for one in held}
        assert not found.obstacles
        assert all(one.congestion and not one.problem for one in found.sockets)


SERVES = """
subprocess.run(["ip", "address", "add", "10.9.9.9/32", "dev", "lo"], check=True)
server = socket.create_server(("10.9.9.9", 7))
def serve(*_):
    kept.append(server.accept()[0])
    if os.fork() == 0:
        signal.pause()
kept = []
signal.signal(signal.SIGUSR1, serve)
open(sys.argv[1], "w").close()
while True: signal.pause()
"""


def test_what_the_process_does_meanwhile_is_not_a_strangers(namespace: Namespace) -> None:
    """Accepted since it was looked at, by it and by a new child of it, and not yet accepted at all."""
    with program("import subprocess\n" + SERVES) as pid, contextlib.ExitStack() as stack:
        found = inventory.process(pid)
        found.service_addresses.append("10.9.9.9")
        for _ in range(2):
            stack.enter_context(socket.create_connection(("10.9.9.9", 7), 5, ("127.0.0.1", 0)))
        os.kill(pid, signal.SIGUSR1)
        eventually(lambda: len(tree.tasks(pid)) == 2, "a child")
        assert not inventory.host(process=found, criu_problem=works).taken_ports
        with program('a = socket.create_server(("10.9.9.9", 8)); ready()') as other:
            here = inventory.host(process=found, criu_problem=works)
        assert [one.holder.split()[-1] for one in here.taken_ports] == [f"{other})"]


def test_what_ss_says(namespace: Namespace) -> None:
    code = PAIR + 'six = socket.create_server(("::", 0), family=10, dualstack_ipv6=True)\nready()'
    with program(code):
        said = subprocess.run(["ss", "-tanHe"], capture_output=True, text=True, check=True).stdout
        inodes = {int(word[4:]) for word in said.split() if word.startswith("ino:")}
        assert {one.inode for one in diag.tcp()} == inodes == diag.tcp_inodes()


def test_borrowed_socket_is_the_same(namespace: Namespace) -> None:
    with program(PAIR + "ready()") as pid:
        held = tree.tcp_sockets([pid])[1]
        with borrow(*held.holders[0]) as sock:
            assert os.fstat(sock.fileno()).st_ino == held.inode
            assert not os.get_inheritable(sock.fileno())
        with pytest.raises(TcpcpKernelError, match="Socket operation on non-socket"):
            borrow(pid, 0)
        with pytest.raises(TcpcpKernelError, match="Bad file descriptor"):
            borrow(pid, 999)
        with Lender() as lender:
            assert lender.pidfd(pid) == lender.pidfd(pid)
    with pytest.raises(TcpcpKernelError, match="No such process"):
        borrow(pid, 0)


def test_gone(namespace: Namespace) -> None:
    with program("ready()") as pid:
        Subject(pid).require()
    for look in (tree.tasks, tree.descriptors, tree.threads):
        with pytest.raises(TcpcpKernelError, match="No such process"):
            look(pid)
    with pytest.raises(KernelError, match=f"process {pid} has ended"):
        inventory.process(pid)
    with pytest.raises(Refused):
        Subject(pid)


def test_zombies_are_in_the_tree(namespace: Namespace) -> None:
    with program(
        "if os.fork() == 0: os._exit(0)\nos.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)\nready()"
    ) as pid:
        found = inventory.process(pid)
        assert [one.zombie for one in found.tasks] == [False, True]
        assert not found.obstacles


def test_files(namespace: Namespace, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("1")
    (tmp_path / "data").write_text("22")
    code = f"""
a = open("{tmp_path}/log", "a"); b = open("{tmp_path}/data", "r+"); c = open("/proc/self/stat"); ready()
"""
    with program(code) as pid:
        found = inventory.process(pid)
    files = {(one.path, one.use): one for one in found.files}
    log, data = files[f"{tmp_path}/log", File.OPEN], files[f"{tmp_path}/data", File.OPEN]
    assert (log.written, log.append_only, log.size_bytes) == (True, True, 1)
    assert (data.written, data.append_only, data.size_bytes) == (True, False, 2)
    assert files["/tmp", File.WORKING_DIRECTORY].directory
    executable = files[str(Path(sys.executable).resolve()), File.EXECUTABLE]
    assert executable.regular and not executable.written
    libc = next(one for one in found.files if "libc" in one.path and one.use == File.MAPPED)
    assert len(libc.build_id) == 20
    assert not any(one.path.startswith("/proc") for one in found.files)
    assert not found.obstacles
    assert 1 << 20 < found.memory_bytes < 100 << 20


def test_directories_that_are_being_read(namespace: Namespace, tmp_path: Path) -> None:
    """One from the beginning, some of one or all; both hosts, which are one here, see them in the same place."""
    for name in ("new", "part", "end"):
        (tmp_path / name / "in it").mkdir(parents=True)
    code = f"""
d = [os.open("{tmp_path}/" + name, os.O_RDONLY) for name in ("new", "part", "end")] + [os.open("/proc/sys", 0)]
kept = [os.scandir(one) for one in d[1:]]
[next(one) for one in kept]; list(kept[1]); os.listdir(d[0]); ready()
"""
    with program(code) as pid:
        found = inventory.process(pid)
    files = {Path(one.path).name: one for one in found.files if one.directory}
    read = {name: files[name].read_in_part for name in ("new", "part", "sys")}
    assert read == {"new": False, "part": True, "sys": False}
    there = {one.path: one for one in described.there(list(found.files))}
    assert files["part"].storage and there[files["part"].path].storage == files["part"].storage


def test_deleted_files(namespace: Namespace, tmp_path: Path) -> None:
    code = f"""
os.chdir("{tmp_path}")
for name in "small", "large", "linked": globals()[name] = open(name, "wb")
large.write(bytes(3 << 20)); large.flush()
os.mkdir("away"); os.link("linked", "away/other"); os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
for name in "small", "large", "linked": os.unlink("../" + name)
ready()
"""
    with program(code) as pid:
        found = inventory.process(pid)
    assert codes(found) == [
        ("deleted-file", f"{tmp_path}/large"),
        ("deleted-file", f"{tmp_path}/small"),
        ("renamed-file", f"{tmp_path}/linked"),
    ]
    gone = {one.path: one for one in found.files if one.use == File.DELETED}
    assert gone[f"{tmp_path}/gone"].directory and not gone[f"{tmp_path}/small"].directory
    assert not gone[f"{tmp_path}/gone"].exists
    sizes = {one.what: one.size_bytes for one in found.obstacles}
    assert sizes[f"{tmp_path}/large"] >= 3 << 20 > sizes[f"{tmp_path}/small"]


def test_names_that_end_as_the_kernel_shows_deleted_files(namespace: Namespace, tmp_path: Path) -> None:
    """What lives is what it is called, and nothing that has been deleted; a deleted one had such a name, too."""
    code = f"""
import mmap
os.chdir("{tmp_path}")
for name in "opened", "mapped", "gone":
    globals()[name] = file = open(name + " (deleted)", "w+b", buffering=0)
    file.write(b"x")
memory = mmap.mmap(mapped.fileno(), 1); os.unlink("gone (deleted)")
os.mkdir("here (deleted)"); os.chdir("here (deleted)")
ready()
"""
    with program(code) as pid:
        found = inventory.process(pid)
    ours = [one for one in found.files if one.path.startswith(str(tmp_path))]
    files = {(Path(one.path).name, one.use): one for one in ours}
    assert set(files) == {
        ("opened (deleted)", File.OPEN),
        ("mapped (deleted)", File.OPEN),
        ("mapped (deleted)", File.MAPPED),
        ("gone (deleted)", File.DELETED),
        ("here (deleted)", File.WORKING_DIRECTORY),
    }
    assert files["opened (deleted)", File.OPEN].written
    assert files["mapped (deleted)", File.MAPPED].mapped_shared
    assert codes(found) == [("deleted-file", f"{tmp_path}/gone (deleted)")]


@pytest.mark.parametrize("name", ["line\nfeed", "back\\slash", "back\\012", "caf\u00e9"])
def test_mapped_files_with_names_that_the_kernel_writes_otherwise(
    namespace: Namespace, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"x")
    with program(
        f"import mmap; m = mmap.mmap(os.open({str(tmp_path / name)!r}, os.O_RDWR), 1); ready()"
    ) as pid:
        found = inventory.process(pid)
    assert not found.obstacles
    assert {one.use for one in found.files if one.path == str(tmp_path / name)} == {File.OPEN, File.MAPPED}


def test_a_mapped_file_whose_name_is_no_text(namespace: Namespace, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/a\xff"
    code = f"import mmap; f = os.open({name!r}, os.O_RDWR | os.O_CREAT); os.ftruncate(f, 1); m = mmap.mmap(f, 1)\n"
    with program(code + "os.close(f); ready()") as pid:
        assert set(codes(inventory.process(pid))) == {("file-name", f"{tmp_path}/a\ufffd")}


def test_a_file_that_has_another_name_now(namespace: Namespace, tmp_path: Path) -> None:
    """As a named semaphore of glibc has; and a path that was the name of two such files leads to neither."""
    code = f"""
os.chdir("{tmp_path}")
def make(name, other):
    kept.append(open(name, "w+b", buffering=0)); kept[-1].write(other.encode())
    os.link(name, other); os.unlink(name)
kept = []
make("first", "one"); make("twice", "two"); make("twice", "three")
os.link("one", "link_remap.7")
ready()
"""
    with program(code) as pid:
        found = inventory.process(pid)
    paths = {one.path: one for one in found.files}
    assert paths[f"{tmp_path}/one"].written and paths[f"{tmp_path}/one"].size_bytes == 3
    assert codes(found) == [("renamed-file", f"{tmp_path}/twice")]


def test_a_root_directory_that_was_deleted(namespace: Namespace, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    code = f"sys.argv[1] = os.path.relpath(sys.argv[1]); os.chroot('{tmp_path}/root'); ready()"
    with program(code) as pid:
        (tmp_path / "root").rmdir()
        assert ("deleted-directory", f"{tmp_path}/root") in codes(inventory.process(pid))


def test_pipes(namespace: Namespace) -> None:
    with program("a, b = os.pipe()\nc, d = os.pipe(); os.close(d)\nready()") as pid:
        assert not inventory.process(pid).obstacles
    with program("ready()", stdout=subprocess.PIPE) as pid:
        assert only_code(inventory.process(pid)) == "pipe-written"
    with program("ready()", stdin=subprocess.PIPE) as pid:
        assert only_code(inventory.process(pid)) == "pipe-read"


def test_unix_sockets(namespace: Namespace) -> None:
    with program("a, b = socket.socketpair()\nready()") as pid:
        assert not inventory.process(pid).obstacles
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0migrate-test")
        server.listen()
        with program('a = socket.socket(1); a.connect("\\0migrate-test")\nready()') as pid:
            kept, _ = server.accept()
            assert only_code(inventory.process(pid)) == "unix-outside"


def test_terminals(namespace: Namespace) -> None:
    master, slave = pty.openpty()
    try:
        with program("ready()", stdin=slave) as pid:
            found = inventory.process(pid)
            assert codes(found) == [("terminal", os.ttyname(slave))]
    finally:
        os.close(master)
        os.close(slave)
    with program("import pty; a, b = pty.openpty()\nready()") as pid:
        assert [code for code, _ in codes(inventory.process(pid))] == ["terminal-line"]  # a note


def test_devices(namespace: Namespace) -> None:
    with program('a = open("/dev/urandom", "rb"); b = open("/dev/zero"); ready()') as pid:
        assert not inventory.process(pid).obstacles
    if not Path("/dev/net/tun").exists():
        pytest.skip("no /dev/net/tun")
    with program('a = os.open("/dev/net/tun", os.O_RDWR); ready()') as pid:
        assert codes(inventory.process(pid)) == [("device", "/dev/net/tun")]


def has(family: int, kind: int) -> pytest.MarkDecorator:
    """Skips what a kernel without such sockets cannot show."""
    libc = ctypes.CDLL(None)
    if (found := libc.socket(family, kind, 0)) >= 0:
        os.close(found)
    return pytest.mark.skipif(found < 0, reason=f"no sockets of address family {family}")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("a = socket.socket(2, 1, 262)", "MPTCP"),
        ("a = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "AF_PACKET (address family 17)"),
        pytest.param(
            "a = socket.socket(40, socket.SOCK_STREAM)", "AF_VSOCK (address family 40)", marks=has(40, 1)
        ),
        pytest.param(
            "libc = ctypes.CDLL(None); assert libc.socket(44, 3, 0) >= 0",
            "one without an address (AF_XDP)",
            marks=has(44, 3),
        ),
    ],
)
def test_kinds_of_sockets(namespace: Namespace, code: str, kind: str) -> None:
    with program(code + "\nready()") as pid:
        assert codes(inventory.process(pid)) == [("socket-kind", kind)]
        assert [one.code for one in open_files.again([pid], (), ()).obstacles] == ["socket-kind"]


def test_udp_raw_netlink_and_unconnected(namespace: Namespace) -> None:
    code = """
a = socket.socket(type=2); a.bind(("127.0.0.1", 0)); b = socket.socket(16, 3, 0)
c = socket.socket(); d = socket.socket(); d.bind(("127.0.0.1", 0)); e = socket.socket(2, 3, 1); ready()
"""
    with program(code) as pid:
        found = inventory.process(pid)
        # A raw socket hears what anybody on this host is sent.
        assert set(codes(found)) <= {("datagrams", "a raw socket")}
        assert found.other_addresses == ["127.0.0.1"]
        # Bound and not connected: sock_diag shows it since Linux 6.8.
        assert [one.state for one in found.sockets] in ([7], [])


def test_connections_that_cannot_be_passed(namespace: Namespace) -> None:
    # TIOCOUTQ: all is acknowledged, so that it is urgent for the other end alone.
    sent = (
        'ours.send(b"!", socket.MSG_OOB)\nwhile any(fcntl.ioctl(ours, 0x5411, bytes(4))): time.sleep(0.01)\n'
    )
    with program(PAIR + sent + "ready()") as pid:
        problems = [one.problem for one in inventory.process(pid).sockets if one.problem]
        assert len(problems) == 1 and "urgent" in problems[0]
    md5 = """
key = struct.pack("=HH4s120xBBHI80s", 2, 0, bytes([127, 0, 0, 1]), 0, 0, 3, 0, b"key")
a = socket.socket(); a.setsockopt(6, 14, key); a.bind(("127.0.0.1", 0)); a.listen(); ready()
"""
    with program(md5) as pid:
        assert "MD5" in inventory.process(pid).sockets[0].problem
    policy = """
policy = struct.pack("=40xHBBB3xiI", 2, 0, 0, 0, 0, 0) + b"\\xff" * 32 + bytes(64)
a = socket.socket(); a.setsockopt(0, 17, policy + struct.pack("=IIBBBB4x", 0, 0, 1, 1, 0, 0))
a.bind(("127.0.0.1", 0)); a.listen(); ready()
"""
    with program(policy) as pid:
        assert "IPsec" in inventory.process(pid).sockets[0].problem
    multipath = 'a = socket.socket(2, 1, 262); a.bind(("127.0.0.1", 0)); a.listen()'
    with program(multipath + "\nready()") as pid:
        assert "Multipath" in inventory.process(pid).sockets[0].problem
    connected = "; b = socket.socket(2, 1, 262); b.connect(a.getsockname()); c, _ = a.accept()"
    with program(multipath + connected + "\nready()") as pid:
        assert ["Multipath" in one.problem for one in inventory.process(pid).sockets] == [True] * 3


def test_socket_of_another_namespace(namespace: Namespace) -> None:
    code = """
a = socket.socket(); a.bind(("127.0.0.1", 0))
libc = ctypes.CDLL(None); here = os.open("/proc/self/ns/net", 0); libc.unshare(0x40000000)
b = socket.socket(); libc.setns(here, 0); os.close(here); ready()
"""
    with program(code) as pid:
        assert only_code(inventory.process(pid)) == "socket-namespace"


def test_other_namespaces(namespace: Namespace) -> None:
    with program("ctypes.CDLL(None).unshare(0x40020000)\nready()") as pid:
        assert {("namespace", "mnt"), ("namespace", "net")} <= set(codes(inventory.process(pid)))


def test_time_namespace_moves_with_the_tree(namespace: Namespace) -> None:
    """CRIU leaves every restored process in one; such a process can be moved again."""
    code = """
ctypes.CDLL(None).unshare(0x80)
if os.fork(): os.wait()
os.setsid(); ready()
"""
    with program(code) as parent:
        [pid] = tree.tasks(parent)[1:]
        assert Path(f"/proc/{pid}/ns/time").readlink() != Path("/proc/self/ns/time").readlink()
        assert not inventory.process(pid).obstacles
        os.kill(pid, 9)


@pytest.mark.parametrize(
    ("become", "code"), [("", "traced"), ("os.execv('/proc/self/exe', ['criu', '-c', WAIT])", "held")]
)
def test_traced(namespace: Namespace, become: str, code: str) -> None:
    """By a debugger, which may be ended, or by a CRIU, which takes the process with it."""
    wait = "WAIT = 'import signal, time; time.sleep(1000)'\n"
    trace = f"ctypes.CDLL(None).ptrace(0x4206, {{}}, 0, 0); open(sys.argv[1], 'w').close()\n{become}\nready()"
    with program("ready()") as pid, program(wait + trace.format(pid)) as tracer:
        eventually(lambda: codes(inventory.process(pid)) == [(code, str(tracer))], "its tracer is told")


def waits_for_a_lock(pid: int) -> bool:
    """Others of this machine may wait for theirs."""
    lines = map(str.split, Path("/proc/locks").read_text().splitlines())
    return any(words[1] == "->" and str(pid) in words for words in lines)


@pytest.mark.parametrize("lock", ["fcntl.flock(f, 2)", "fcntl.lockf(f, 2, 10, 5)"])
def test_who_waits_for_a_lock(namespace: Namespace, tmp_path: Path, lock: str) -> None:
    """Who waits gets it here, and a note says so."""
    code = f"f = open('{tmp_path}/lock', 'w'); "
    wait = f"threading.Thread(target=lambda: {lock}, daemon=True).start(); ready()"
    with program(f"{code}{lock}; ready()") as pid:
        assert not inventory.process(pid).obstacles
        with program(code + wait) as waiter:
            eventually(lambda: waits_for_a_lock(waiter), "it waits")
            found = [one for one in inventory.process(pid).obstacles if one.code == "lock-awaited"]
            again = list(waiters.obstacles(open_files.again([pid], (), ()).locks, [pid]))
            assert not [one for one in inventory.process(waiter).obstacles if one.code == "lock-awaited"]
    assert [(one.pid, f"(PID {waiter})" in one.what) for one in found] == [(pid, True)] and again == found


def test_locks_are_looked_at_only_of_a_tree_that_has_one(namespace: Namespace, tmp_path: Path) -> None:
    """To read /proc/locks waits for all processors: some 10 ms, for which a frozen process would wait."""
    read: list[object] = []
    watching = [False]
    sys.addaudithook(lambda event, of: read.append(of[0]) if watching[0] and event == "open" else None)
    code = f"f = open('{tmp_path}/lock', 'w'); import fcntl; {{}}; ready()"
    for lock, count in (("0", 0), ("fcntl.flock(f, 2)", 1)):
        with program(code.format(lock)) as pid:
            watching[0] = True
            again = open_files.again([pid], (), ())
            assert "/proc/locks" not in map(str, read), (
                "it is looked at before anything that takes as long begins"
            )
            assert not list(waiters.obstacles(again.locks, [pid]))
            watching[0] = False
        assert [*map(str, read)].count("/proc/locks") == count
        read.clear()


@pytest.mark.parametrize("thread", [0, -1], ids=["a process", "a child"])
def test_who_has_a_pidfd(namespace: Namespace, thread: int) -> None:
    """It will be told that the process has ended, and a note says so; the driver's own is none."""
    with program("if os.fork() == 0: signal.pause()\nready()") as pid:
        other = tree.tasks(pid)[thread]
        own = os.pidfd_open(other)
        assert not inventory.process(pid).obstacles
        with program(f"a = os.pidfd_open({other}); b = os.dup(a); os.pidfd_open(1); ready()") as holder:
            [found] = inventory.process(pid).obstacles
            assert {code for code, _ in codes(inventory.process(holder))} == {"pidfd"}
        os.close(own)
    assert (found.code, found.pid, f"(PID {holder})" in found.what) == ("pidfd-stays", other, True)
    assert found.code in NOTES


@pytest.mark.parametrize("own", [0, 1], ids=["in its group", "in a group of their own"])
def test_workers_whose_parent_has_ended(namespace: Namespace, own: int) -> None:
    """They are of its session, but not below it: a note names them."""
    worker = f"(os.setpgid(0, 0) if {own} else 0, open(sys.argv[1] + 'w', 'w').write(str(os.getpid())))"
    code = f"""
if os.fork() == 0:
    if os.fork() == 0:
        {worker}; signal.pause()
    os._exit(0)
os.wait()
while not os.path.exists(sys.argv[1] + 'w') or not open(sys.argv[1] + 'w').read(): time.sleep(0.01)
print(open(sys.argv[1] + 'w').read(), flush=True)
ready()
"""
    read, write = os.pipe()
    with program(code, stdout=write) as pid:
        worker_pid = int(os.read(read, 100))
        found = [one for one in inventory.process(pid).obstacles if one.code == "session-stays"]
        assert not [one for one in inventory.process(worker_pid).obstacles if one.code == "session-stays"]
        os.kill(worker_pid, 9)
    os.close(read), os.close(write)
    assert [(one.pid, f"(PID {worker_pid})" in one.what) for one in found] == [(pid, True)]
    assert found[0].code in NOTES


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of clone(2)")
def test_a_sibling_that_it_has_made(namespace: Namespace) -> None:
    """Its parent is that of the process, and lives: the note does not say otherwise."""
    code = "other = ctypes.CDLL(None).syscall(56, 0x8000 | 17, 0, 0, 0, 0) or signal.pause()\n"
    read, write = os.pipe()
    with program(code + "print(other, flush=True); ready()", stdout=write) as pid:
        other = int(os.read(read, 100))
        [note] = notes(inventory.process(pid))
    os.waitpid(other, 0)
    os.close(read), os.close(write)
    assert f"(PID {other})" in note and "CLONE_PARENT" in note


def test_children_that_were_made_after_the_tree_was_listed(namespace: Namespace) -> None:
    """They are below it, and no helpers that stay: no note names them."""
    with program("if os.fork() == 0: (os.fork(), signal.pause())\nready()") as pid:
        listed = [Task(pid=pid, sid=os.getsid(pid), pgid=os.getpgid(pid))]
        children = [one for one in tree.tasks(pid) if one != pid]
        assert children and not [*of_its_session.obstacles(pid, listed)]


def test_a_tracer(namespace: Namespace) -> None:
    """Whom it traces stays, one thread of it may be all."""
    threads = "threading.Thread(target=signal.pause, daemon=True).start()\nready()"
    trace = "ctypes.CDLL(None).ptrace(0x4206, {}, 0, 0x100000); ready()"
    with program(threads) as pid, program(trace.format(tree.threads(pid)[-1])) as tracer:
        [(code, what)] = codes(inventory.process(tracer))
    assert (code, f"(PID {pid})" in what) == ("tracing", True)


def test_anonymous_descriptors(namespace: Namespace) -> None:
    code = """
import select
a, b = select.epoll(), os.eventfd(0); c = os.pidfd_open(os.getpid()); libc = ctypes.CDLL(None)
d = libc.inotify_init(); e = libc.timerfd_create(1, 0)
"""
    with program(code + "ready()") as pid:
        assert not inventory.process(pid).obstacles
    with program(code + "f = os.pidfd_open(1); ready()") as pid:
        assert codes(inventory.process(pid)) == [("pidfd", "1")]
    with program("ctypes.CDLL(None).syscall(323, 1)\nready()") as pid:
        assert codes(inventory.process(pid)) == [("anonymous", "anon_inode:[userfaultfd]")]


def test_a_directory_that_is_only_a_place(namespace: Namespace) -> None:
    """Nobody can ask who owns a descriptor of O_PATH, as systemd, container runtimes and servers of files have."""
    with program("d = os.open('/tmp', os.O_PATH | os.O_DIRECTORY); ready()") as pid:
        assert not inventory.process(pid).obstacles
        assert not open_files.again([pid], (), ()).obstacles


def test_system_v_memory(namespace: Namespace) -> None:
    code = """
libc = ctypes.CDLL(None, use_errno=True); libc.shmat.restype = ctypes.c_void_p
i = libc.shmget(0, 4096, 0o1600); libc.shmat(i, None, 0); libc.shmctl(i, 0, None); ready()
"""
    with program(code) as pid:
        assert only_code(inventory.process(pid)) == "sysv-shm"


def works(_: str | None) -> str:
    return ""


def test_answers_about_this_host(namespace: Namespace, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("1")
    with program(PAIR + f'f = open("{tmp_path}/log", "a"); ready()') as pid:
        found = inventory.process(pid)
        (tmp_path / "log").unlink()
        there = inventory.answer(found, criu_problem=works)
        here = inventory.host(process=found, criu_problem=works)
    assert list(there.taken_pids) == [pid] and "python" in there.taken_by[pid]
    assert len(there.taken_ports) == 3 and f"(PID {pid})" in there.taken_ports[0].holder
    exists = {one.path: one.exists for one in there.files}
    assert not exists[f"{tmp_path}/log"] and exists["/tmp"]
    same = {(one.path, one.build_id) for one in there.files if one.build_id}
    assert same == {(one.path, one.build_id) for one in found.files if one.build_id}
    assert here.root and here.machine and here.memory_available_bytes and here.image_space_bytes
    assert [one.name for one in here.interfaces if one.up] == ["lo"]
    assert not here.taken_ports
    assert {"no-file", "port-taken"} <= {one.code for one in checks.refusals(found, here, there, Along())}


LEADER_ENDS = f"""
threading.Thread(target=signal.pause).start()
open(sys.argv[1], "w").close(); ctypes.CDLL(None).syscall({60 if os.uname().machine == "x86_64" else 93}, 0)
"""


def test_main_thread_that_has_ended(namespace: Namespace) -> None:
    """It has not ended, though most of /proc says so."""
    with program(LEADER_ENDS) as pid:
        eventually(lambda: proc.stat(pid).state == "Z", "its main thread has ended")
        with pytest.raises(KernelError, match="main thread of process .* has ended, others live"):
            inventory.process(pid)
    child = f"if os.fork() == 0:\n    sys.argv[1] += '2'\n{LEADER_ENDS.replace(chr(10), chr(10) + '    ')}\nready()"
    with program(child) as pid:
        eventually(lambda: any(proc.stat(one).state == "Z" for one in tree.tasks(pid)), "a child's has")
        assert only_code(inventory.process(pid)) == "leader-ended"


def test_all_memory_is_locked(namespace: Namespace) -> None:
    """Whether what it maps later is to be locked as well shows nowhere."""
    with program("ctypes.CDLL(None).mlockall(3); ready()") as pid:
        assert codes(inventory.process(pid)) == [("locked-future", "")] and "locked-future" in NOTES
    with program("ctypes.CDLL(None).mlockall(3); ctypes.CDLL(None).munlockall(); ready()") as pid:
        assert not inventory.process(pid).obstacles


@pytest.mark.parametrize("on_fault", [0, 1])
def test_memory_that_is_locked(namespace: Namespace, on_fault: int) -> None:
    code = f"""
import mmap
memory = mmap.mmap(-1, 1 << 20); memory[0] = 1
libc = ctypes.CDLL(None); libc.mlock2.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint
assert libc.mlock2(ctypes.addressof(ctypes.c_char.from_buffer(memory)), 1 << 20, {on_fault}) == 0; ready()
"""
    with program(code) as pid:
        found = [(one.code, one.size_bytes) for one in inventory.process(pid).obstacles]
    assert found == ([("locked-on-fault", (1 << 20) - mmap.PAGESIZE)] if on_fault else [])


def test_queues_of_listeners(namespace: Namespace) -> None:
    """As for listen(2); the accepted end of a unix connection has its listener's name, and may be seen first."""
    code = """
a = socket.create_server(("127.0.0.1", 0), backlog=17)
b = socket.socket(socket.AF_UNIX); b.bind("\\0backlog"); b.listen(18)
c = socket.socket(socket.AF_UNIX); c.connect("\\0backlog"); d, _ = b.accept()
number = b.fileno(); os.dup2(number, 100); os.dup2(d.fileno(), number); ready()
"""
    with program(code) as pid:
        found = inventory.process(pid)
    assert [one.backlog for one in found.sockets] == [17]
    assert [(one.name, one.backlog) for one in found.names] == [("@backlog", 18)]
    most = inventory.host(process=found, criu_problem=works).most_backlog
    assert most == int(Path("/proc/sys/net/core/somaxconn").read_text())


def test_others_on_a_service_address(namespace: Namespace) -> None:
    subprocess.run(["ip", "addr", "add", "10.9.9.9/32", "dev", "lo"], check=True)
    listen = 'a = socket.create_server(("10.9.9.9", 0)); ready()'
    with program(listen) as pid, program(listen) as other:
        here = inventory.host(process=inventory.process(pid), criu_problem=works)
        assert [one.holder.split()[-1] for one in here.taken_ports] == [f"{other})"]


def test_a_tree_that_never_rests_gives_an_answer(namespace: Namespace) -> None:
    code = """
if os.fork() == 0:
    while True:
        if os.fork() == 0: os._exit(0)
        os.wait()
ready()
"""
    with program(code) as pid:
        for _ in range(30):
            with contextlib.suppress(KernelError):  # the tree did not come to rest
                assert inventory.process(pid).tasks[0].pid == pid


def test_fast_enough(namespace: Namespace) -> None:
    """A small process: the operator does not wait for the look at it. In processor time: others use it, too."""
    with program(PAIR + "ready()") as pid:
        best = min(_timed(pid) for _ in range(5))
    assert best < 0.15


def _timed(pid: int) -> float:
    begin = time.process_time()
    found = inventory.process(pid)
    checks.refusals(
        found,
        inventory.host(process=found, criu_problem=works),
        inventory.answer(found, criu_problem=works),
        Along(),
    )
    return time.process_time() - begin
