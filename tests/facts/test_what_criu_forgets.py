"""What CRIU forgets without a word, or refuses only when the process is frozen, is found in one that runs."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns import Namespace
from programs import program

from migrate import inventory
from migrate.checks.obstacles import NOTES, WORDS
from migrate.inventory import open_files, sysv
from migrate.processes import mounts
from tcpcp.criu import tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces")

THREAD = """
libc = ctypes.CDLL(None)
def other(flags):
    apart = threading.Event()
    def own():
        libc.unshare(flags)
        apart.set()
        threading.Event().wait()
    threading.Thread(target=own, daemon=True).start()
    apart.wait()
"""
SOCKET = "s = socket.socket(socket.%s)\n"
PING = "open('/proc/sys/net/ipv4/ping_group_range', 'w').write('0 100')\n"
EPOLL = """
import select
r, w = os.pipe(); other = os.dup(r); epoll = select.epoll(); epoll.register(r, 1); ONE = 4 | select.EPOLLONESHOT
"""
UNIX = "a, b = socket.socketpair()\n"
GROUP = """
a = socket.socket(%s, 2); a.setsockopt(%s, socket.inet_pton(a.family, "%s") + %s)
"""
LARGE = """
libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_long
assert libc.mmap(None, ctypes.c_long(%d), %d, 0x4022, -1, ctypes.c_long(0)) > 0
"""
RAW = "import termios, tty; m, s = os.openpty(); tty.setraw(s)\n"
PEER = "os.chmod(os.path.dirname(sys.argv[1]), 0o777); os.setegid(1234); os.seteuid(1234)\n"
BACK = "\nos.seteuid(0); os.setegid(0); ctypes.CDLL(None).prctl(4, 1, 0, 0, 0); ready()"
WATCH = """
libc = ctypes.CDLL(None); w = libc.inotify_init(); folder = os.path.dirname(sys.argv[1]).encode() + b"/watched"
os.mkdir(folder); assert libc.inotify_add_watch(w, folder, ctypes.c_uint(%s)) > 0
"""
MOUNT = """
folder = "%s"
def mount(what, where):
    assert ctypes.CDLL(None).mount(what.encode(), where.encode(), None, 4096, None) == 0
"""
SECRET = """
libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p
f = libc.syscall(447, 0); os.ftruncate(f, 4096)
m = libc.mmap(None, ctypes.c_size_t(4096), 3, 1, f, ctypes.c_long(0)); ctypes.memset(m, 7, 9)
"""
MEMORY_EXECUTED = """
if not os.environ.get("AGAIN"):
    m = os.memfd_create("program")
    with open("/proc/self/exe", "rb") as own: os.write(m, own.read())
    line = open("/proc/self/cmdline", "rb").read().split(b"\\0")[:-1]
    os.execve(m, line, {"AGAIN": "1", "PYTHONHOME": sys.base_prefix})
ready()
"""
#: To say so asks no clock.
WITHOUT_VDSO = """
line = next(one for one in open("/proc/self/maps") if one.endswith("[vdso]\\n"))
first, end = (int(number, 16) for number in line.split()[0].split("-"))
open(sys.argv[1], "w").close()
ctypes.CDLL(None).munmap(ctypes.c_void_p(first), ctypes.c_size_t(end - first)); signal.pause()
"""
DEEP = """
os.chdir(os.path.dirname(sys.argv[1]))
for _ in range(25): os.mkdir("d" * 199), os.chdir("d" * 199)
"""
#: Without any in the host's pool (MAP_NORESERVE): none is touched.
HUGE = """
libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_long
assert libc.mmap(None, ctypes.c_size_t(2 << 20), 3, %s | 0x44000, -1, ctypes.c_long(0)) > 0
"""
HUGE_FILE = """
f = os.memfd_create("huge", os.MFD_HUGETLB); os.ftruncate(f, 2 << 20)
"""
HUGE_NAMED = """
folder = os.path.dirname(sys.argv[1]) + "/huge"; os.mkdir(folder)
libc = ctypes.CDLL(None); libc.unshare(0x20000); libc.mount(b"none", b"/", None, 0x44000, None)
assert libc.mount(b"none", folder.encode(), b"hugetlbfs", 0, None) == 0
f = os.open(folder + "/file", os.O_RDWR | os.O_CREAT); os.ftruncate(f, 2 << 20)
"""
HUGE_MAPPED = """
libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_long
assert libc.mmap(None, ctypes.c_size_t(2 << 20), 3, 0x4001, f, ctypes.c_long(0)) > 0
os.close(f)
"""
SEGMENT = """
libc = ctypes.CDLL(None); number = libc.shmget(0, 4096, 0o1600)
"""
#: As a user that nobody else is: a process of root may have made what root has.
UNUSED = """
os.setresuid(4711, 4711, 0)
libc = ctypes.CDLL(None); number = libc.%s0o1600)
os.setresuid(4711, 0, 0)
"""
SEMAPHORE = """
libc = ctypes.CDLL(None); number = libc.semget(0, 2, 0o1600); libc.semctl(number, 1, 16, 5)
"""
QUEUE = """
libc = ctypes.CDLL(None); number = libc.msgget(0, 0o1600); libc.msgsnd(number, struct.pack("=q", 1) + b"hi", 2, 0)
"""
SHARING = """
if ctypes.CDLL(None).syscall(56, %s | 17, 0, 0, 0, 0) == 0: time.sleep(1000)
"""
x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of clone(2)")


def epolls_with_parameters() -> bool:
    with select.epoll() as epoll:
        try:
            fcntl.ioctl(epoll, 0x80088A02, bytes(8))
        except OSError:
            return False
    return True


def pidfds_of_threads() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid(), os.O_EXCL))
    except OSError:
        return False
    return True


EBPF = """
from tcpcp.kernel import bpf
drop = bpf._load(1, 0, 0, struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0))
def filtered(sock):
    sock.setsockopt(1, 50, drop); os.close(drop); ready()
"""


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """What System V has does not end with a program."""
    before = left()
    yield
    libc = ctypes.CDLL(None)
    for kind, number in left() - before:
        remove = {"sem": libc.semctl, "msg": libc.msgctl, "shm": libc.shmctl}[kind]
        assert remove(number, 0, *([0] if kind == "sem" else [None])) == 0


def left() -> set[tuple[str, int]]:
    return {
        (kind, int(line.split()[1]))
        for kind in ("sem", "msg", "shm")
        for line in Path("/proc/sysvipc", kind).read_text().splitlines()[1:]
    }


CHURN = """
import select
def churn():
    epoll = select.epoll()
    while True:
        ends = socket.socketpair()
        for one in ends: epoll.register(one, 1)
        for one in ends: one.close()
idle = [os.dup(0) for _ in range(200)]
for _ in range(3): threading.Thread(target=churn).start()
ready()
"""


def found_in(code: str) -> set[str]:
    with program(code) as pid:
        obstacles = inventory.process(pid).obstacles
        since = {one.code for one in open_files.again(tree.tasks(pid), (), ()).obstacles}
    assert all(one.code in {**WORDS, **NOTES} for one in obstacles)
    found = {one.code for one in obstacles}
    # What is found when the tree is looked at again, but what CRIU itself refuses.
    assert since == found - {"shared"}
    return found


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        pytest.param(THREAD + "other(0x400); ready()", "thread-apart", id="files of a thread"),
        pytest.param(THREAD + "other(0x200); ready()", "thread-apart", id="directory of a thread"),
        pytest.param(THREAD + "other(0x40000000); ready()", "thread-apart", id="namespace of a thread"),
        pytest.param(SHARING % "0x200" + "ready()", "shared", id="directory of two processes", marks=x86),
        pytest.param(
            EPOLL + "epoll.register(other, 1); os.close(other); ready()",
            "epoll-closed",
            id="copy watched as well",
        ),
        pytest.param(
            EPOLL + "pid = os.fork()\nif pid == 0: signal.pause()\nos.close(r); os.close(other); ready()",
            "epoll-closed",
            id="copy in another process",
        ),
        pytest.param("r, w = os.pipe2(os.O_DIRECT); ready()", "pipe-packets", id="pipe of packets"),
        pytest.param(
            "ctypes.CDLL(None).timerfd_create(9, 0); ready()",
            "alarm-clock",
            id="a clock that wakes the machine",
        ),
        pytest.param(
            UNIX + "a.setsockopt(1, 16, 1); b.send(b'x'); ready()",
            "unix-credentials",
            id="credentials that wait",
        ),
        pytest.param(
            "a, b = socket.socketpair(1, 5); a.send(b''); a.send(b'x'); ready()",
            "unix-empty",
            id="an empty message",
        ),
        pytest.param(
            "a, b = socket.socket(1, 2), socket.socket(1, 2); a.bind(''); b.bind('')\n"
            "b.sendto(b'x', a.getsockname()); ready()",
            "unix-sender",
            id="a sender's name",
        ),
        pytest.param(UNIX + "a.send(b'!', socket.MSG_OOB); ready()", "unix-urgent", id="an urgent byte"),
        pytest.param(UNIX + "b.send(b'x'); a.close(); ready()", "unix-error", id="an error not told"),
        pytest.param(
            "libc = ctypes.CDLL(None); here = os.open('/proc/self/ns/net', 0); libc.unshare(0x40000000)\n"
            "f = os.open('/proc/self/ns/net', 0); libc.setns(here, 0); ready()",
            "namespace-file",
            id="another network's namespace",
        ),
        pytest.param("ctypes.CDLL(None).unshare(0x2000000); ready()", "namespace", id="other control groups"),
        pytest.param(
            "if os.fork() == 0:\n    ctypes.CDLL(None).unshare(0x4000000); ready()\nsignal.pause()",
            "namespace",
            id="another host name of a child",
        ),
        pytest.param(
            "if ctypes.CDLL(None).syscall(56, 0, 0, 0, 0, 0) == 0: signal.pause()\nready()",
            "exit-signal",
            id="a child that ends without a signal",
            marks=x86,
        ),
        pytest.param(EBPF + "filtered(socket.socket(2, 2))", "socket-filter", id="eBPF filter, UDP"),
        pytest.param(EBPF + UNIX + "filtered(a)", "socket-filter", id="eBPF filter, unix"),
        pytest.param(EBPF + "filtered(socket.socket(2, 1))", "socket-filter", id="eBPF filter, TCP unbound"),
        pytest.param("os.eventfd(3, os.EFD_SEMAPHORE); ready()", "eventfd-semaphore", id="eventfd semaphore"),
        pytest.param(
            "d = os.open(os.path.dirname(sys.argv[1]), 0); fcntl.fcntl(d, fcntl.F_NOTIFY, fcntl.DN_CREATE)\n"
            "signal.signal(signal.SIGIO, signal.SIG_IGN); ready()",
            "dnotify",
            id="dnotify",
        ),
        pytest.param(
            EPOLL
            + "epoll.register(w, ONE); os.write(w, b'x'); epoll.poll(); os.close(r); os.close(other); ready()",
            "epoll-disarmed",
            id="an event of what is disarmed",
        ),
        pytest.param("os.chdir('/proc/self'); ready()", "proc-directory", id="in the directory of a process"),
        pytest.param("os.chdir('/proc/1/net'); ready()", "proc-directory", id="in that of another process"),
        pytest.param(
            WATCH % "0x100" + "open(folder + b'/new', 'w'); ready()",
            "watch-unread",
            id="events that wait",
        ),
        pytest.param(
            "p = os.open('/proc/pressure/memory', os.O_RDWR); os.write(p, b'some 50000 2000000\\0'); ready()",
            "pressure",
            id="a trigger of pressure",
        ),
        pytest.param(RAW + "os.write(s, b'out'); ready()", "terminal-unread", id="output of a terminal"),
        pytest.param(RAW + "os.write(m, b'in'); ready()", "terminal-unread", id="input of a terminal"),
        pytest.param(
            RAW + "a = termios.tcgetattr(s); a[6][termios.VMIN] = 9; termios.tcsetattr(s, 0, a)\n"
            "os.write(m, b'in'); ready()",
            "terminal-unread",
            id="less input of a terminal than wanted",
        ),
        pytest.param(LARGE % (8 << 40, 3) + "ready()", "mapping-sparse", id="8 TiB"),
        pytest.param(WATCH % "0x80000100" + "ready()", "watch-once", id="a watch for one event"),
        pytest.param(
            GROUP % (2, "0, 35", "239.1.2.3", 'socket.inet_aton("127.0.0.1")') + "ready()",
            "multicast",
            id="IPv4 group",
        ),
        pytest.param(
            GROUP % (10, "41, 20", "ff02::1234", 'struct.pack("=I", 1)') + "ready()",
            "multicast",
            id="IPv6 group",
        ),
        pytest.param(SECRET + "ready()", "secret-memory", id="secret memory"),
        pytest.param(
            SECRET + "os.close(f); ready()", "secret-memory", id="secret memory that is mapped alone"
        ),
        pytest.param(
            "f = os.pidfd_open(os.getpid(), os.O_EXCL); ready()",
            "pidfd-thread",
            id="a pidfd of a thread",
            marks=pytest.mark.skipif(not pidfds_of_threads(), reason="a kernel without PIDFD_THREAD (6.9)"),
        ),
        pytest.param(
            "q = b'/of-a-test'; m = ctypes.CDLL(None).mq_open(q, 0o102, 0o600, None); assert m >= 0\n"
            "ctypes.CDLL(None).mq_unlink(q); ready()",
            "message-queue",
            id="a POSIX message queue",
        ),
        pytest.param(
            "libc = ctypes.CDLL(None); assert libc.syscall(428, -100, b'/tmp', 1) >= 0; ready()",
            "foreign-place",
            id="a detached mount",
        ),
        pytest.param(
            "a = socket.create_server(('127.0.0.1', 0)); b = socket.create_connection(a.getsockname())\n"
            "libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_long\n"
            "assert libc.mmap(None, ctypes.c_size_t(4096), 1, 1, b.fileno(), ctypes.c_long(0)) > 0; ready()",
            "mapped-socket",
            id="a connection that is mapped",
        ),
        pytest.param(DEEP + "ready()", "path-length", id="a directory too deep"),
        pytest.param(
            DEEP + "f = open('file', 'w'); os.chdir('/tmp'); ready()", "path-length", id="a file too deep"
        ),
        pytest.param(
            DEEP + "import mmap; f = open('file', 'wb+'); f.truncate(4096); m = mmap.mmap(f.fileno(), 4096)\n"
            "f.close(); os.chdir('/tmp'); ready()",
            "path-length",
            id="a mapped file too deep",
        ),
        pytest.param(MEMORY_EXECUTED, "memory-executed", id="a program out of memory"),
        pytest.param(WITHOUT_VDSO, "vdso", id="no vDSO"),
        pytest.param(HUGE % "2 | 0x20" + "ready()", "huge-pages", id="huge pages"),
        pytest.param(HUGE % "1 | 0x20" + "ready()", "huge-pages", id="shared huge pages"),
        pytest.param(HUGE_FILE + "ready()", "huge-pages", id="a memfd of huge pages"),
        pytest.param(HUGE_FILE + HUGE_MAPPED + "ready()", "huge-pages", id="huge pages of a memfd"),
        pytest.param(SEMAPHORE + "ready()", "sysv-ipc", id="semaphores"),
        pytest.param(QUEUE + "ready()", "sysv-ipc", id="message queue"),
        pytest.param(SEGMENT + "ready()", "sysv-ipc", id="shared memory that nobody has attached"),
    ],
)
def test_what_is_found(namespace: Namespace, nothing_left: None, code: str, kind: str) -> None:
    assert found_in(code) == {kind}


@pytest.mark.parametrize("call", ["msgget(0, ", "semget(0, 2, "])
def test_what_may_be_its_own(namespace: Namespace, nothing_left: None, call: str) -> None:
    """Nobody has used it yet. What another user has made, or was there before, is not the process's own."""
    with program(UNUSED % call + "ready()") as pid:
        assert "sysv-unused" in {one.code for one in inventory.process(pid).obstacles}
        assert "sysv-unused" in {one.code for one in open_files.again(tree.tasks(pid), (), ()).obstacles}
        with program("os.setresuid(4712, 0, 0); ready()") as other:
            assert list(sysv.obstacles([other])) == []
    time.sleep(1.1)  # the kernel counts in seconds
    with program("os.setresuid(4711, 0, 0); ready()") as later:
        assert list(sysv.obstacles([later])) == []


@pytest.mark.parametrize("mapped", ["", HUGE_MAPPED], ids=("open", "mapped"))
def test_huge_pages_with_a_name(namespace: Namespace, mapped: str) -> None:
    """In a mount namespace of its own, which is found too."""
    assert "huge-pages" in found_in(HUGE_NAMED + mapped + "ready()")


def test_a_child_that_is_stopped(namespace: Namespace) -> None:
    """Seen by the check alone: a tree that is frozen is stopped as a whole."""
    code = "child = os.fork() or signal.pause(); os.kill(child, signal.SIGSTOP); os.waitpid(child, os.WUNTRACED)\n"
    with program(f"import signal\n{code}ready()") as pid:
        (found,) = inventory.process(pid).obstacles
        os.kill(found.pid, signal.SIGKILL)
    assert found.code == "stopped-child" and found.code in NOTES and found.pid != pid


def test_a_hint_for_writing(namespace: Namespace) -> None:
    """Seen by the check alone: it is no more than a note."""
    code = "f = open(sys.argv[1] + 'f', 'w'); fcntl.fcntl(f, 1036, struct.pack('=Q', 2)); g = open(f.name)\n"
    with program(code + "h = open(f.name + 'h', 'w'); ready()") as pid:
        found = inventory.process(pid).obstacles
    assert {one.code for one in found} == {"write-hint"} <= set(NOTES) and len(found) == 2


def test_secret_memory_that_was_given_back(namespace: Namespace) -> None:
    """As the refusal recommends."""
    assert found_in(SECRET + "libc.munmap(ctypes.c_void_p(m), 4096); os.close(f); ready()") == set()


def test_a_listener_with_a_filter_that_cannot_be_read(namespace: Namespace) -> None:
    """Of classic BPF the kernel gives the text."""
    with program(EBPF + "filtered(socket.create_server(('', 0)))") as pid:
        [found] = inventory.process(pid).sockets
    assert "eBPF filter" in found.problem
    classic = "text = ctypes.create_string_buffer(struct.pack('=HBBI', 6, 0, 0, 9))\n"
    classic += "s = socket.create_server(('', 0))\n"
    attach = "s.setsockopt(1, 26, struct.pack('=HxxxxxxQ', 1, ctypes.addressof(text))); ready()"
    with program(classic + attach) as pid:
        [found] = inventory.process(pid).sockets
    assert not found.problem


def test_pressure_of_a_cgroup(namespace: Namespace) -> None:
    found = (Path(one.place, "memory.pressure") for one in mounts.here() if one.kind == "cgroup2")
    path = next((one for one in found if one.exists()), None)
    if path is None:
        pytest.skip("no cgroups of version 2 with pressure")
    assert found_in(f"p = os.open({str(path)!r}, os.O_RDWR); ready()") == {"pressure"}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        pytest.param(
            EPOLL + "epoll.register(w, ONE); epoll.poll(); epoll.modify(r, ONE); ready()",
            "epoll-oneshot",
            id="disarmed",
        ),
        pytest.param("f = os.open('/tmp', os.O_TMPFILE | os.O_RDWR); ready()", "tmpfile", id="no name"),
        pytest.param(
            "import resource; resource.setrlimit(resource.RLIMIT_CPU, (900, -1)); ready()",
            "processor-time",
            id="RLIMIT_CPU",
        ),
        pytest.param(PEER + UNIX + BACK, "unix-peer", id="a pair of another user"),
        pytest.param(
            PEER + "a = socket.socket(1); a.bind(sys.argv[1] + 's'); a.listen()" + BACK,
            "unix-peer",
            id="a listener of another user",
        ),
        pytest.param(
            "m, s = os.openpty(); os.write(m, b'half'); os.read(m, 9); ready()", "terminal-line", id="a line"
        ),
        pytest.param(
            "import termios; m, s = os.openpty(); a = termios.tcgetattr(s); a[3] &= ~termios.ICANON\n"
            "termios.tcsetattr(s, 0, a); fcntl.ioctl(s, termios.TIOCEXCL); ready()",
            "terminal-exclusive",
            id="a terminal for itself",
        ),
        pytest.param(
            EPOLL + "fcntl.ioctl(epoll, 0x40088A01, struct.pack('=IHBB', 50, 16, 1, 0)); ready()",
            "epoll-busy",
            id="busy polling",
            marks=pytest.mark.skipif(
                not epolls_with_parameters(), reason="a kernel without EPIOCSPARAMS (6.9)"
            ),
        ),
        pytest.param(WATCH % "0x4000100" + "ready()", "watch-unlinked", id="a watch without deleted files"),
        pytest.param("ctypes.CDLL(None).prctl(67, 1, 0, 0, 0); ready()", "memory-merge", id="KSM"),
        pytest.param(SOCKET % "AF_INET, socket.SOCK_RAW, 89" + "ready()", "datagrams", id="raw"),
        pytest.param(SOCKET % "AF_INET6, socket.SOCK_RAW, 89" + "ready()", "datagrams", id="raw IPv6"),
        pytest.param(PING + SOCKET % "AF_INET, socket.SOCK_DGRAM, 1" + "ready()", "datagrams", id="ping"),
    ],
)
def test_what_is_noted(namespace: Namespace, code: str, kind: str) -> None:
    assert found_in(code) - {"deleted-file"} == {kind}
    assert kind in NOTES


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """With a file in it; what is mounted on either is gone afterwards."""
    (tmp_path / "file").touch()
    yield tmp_path
    for path in (tmp_path / "file", tmp_path):
        subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL, check=False)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (
            "mount('/proc/self/ns/net', folder + '/file'); f = open(folder + '/file'); ready()",
            "namespace-file",
        ),
        ("f = open(folder + '/file'); mount('/run', folder); ready()", "hidden-file"),
        ("os.chdir(folder); mount('/run', folder); ready()", "hidden-file"),
        (
            "f = os.open(folder + '/file', os.O_PATH); mount('/etc/hostname', folder + '/file'); ready()",
            "hidden-file",
        ),
    ],
    ids=["a namespace at a path", "a file below a later mount", "a directory", "a file that is one itself"],
)
def test_what_is_mounted(namespace: Namespace, folder: Path, code: str, kind: str) -> None:
    assert found_in(MOUNT % folder + code) == {kind}


PLACES = {
    "a unix socket's file": "s = socket.socket(1); s.bind(folder + '/s'); f = os.open(folder + '/s', os.O_PATH)",
    "a named pipe": "os.mkfifo(folder + '/p'); f = os.open(folder + '/p', os.O_PATH)",
    "memory": "m = os.memfd_create('m'); f = os.open(f'/proc/self/fd/{m}', os.O_PATH)",
    "a pipe": "r, w = os.pipe(); f = os.open(f'/proc/self/fd/{r}', os.O_PATH)",
    "an eventfd": "e = os.eventfd(0); f = os.open(f'/proc/self/fd/{e}', os.O_PATH)",
    "a socket": "a, b = socket.socketpair(); f = os.open(f'/proc/self/fd/{a.fileno()}', os.O_PATH)",
    "a terminal": "import pty; m, s = pty.openpty(); f = os.open(f'/proc/self/fd/{s}', os.O_PATH)",
}


@pytest.mark.parametrize("kind", PLACES)
def test_what_is_only_a_place(namespace: Namespace, kind: str) -> None:
    """CRIU's dump fails of it, or its restore; a file, a directory and a link are opened again."""
    code = "folder = os.path.dirname(sys.argv[1])\n" + PLACES[kind]
    code += "\nos.symlink('x', folder + '/l'); more = [os.open(folder, os.O_PATH), os.open('/dev/null', os.O_PATH),"
    code += " os.open('/etc/passwd', os.O_PATH), os.open(folder + '/l', os.O_PATH | os.O_NOFOLLOW)]; ready()"
    with program(code) as pid:
        found = inventory.process(pid).obstacles
        frozen = open_files.again(tree.tasks(pid), (), ()).obstacles
    assert [one.code for one in found if one.code not in NOTES] == ["place-only"]
    # There may be thousands of sockets, at which nobody looks in the freeze for that.
    refused = [one.code for one in frozen if one.code not in NOTES]
    assert refused == ["place-only"] * (kind != "a socket")


def test_what_was_mounted_before(namespace: Namespace, folder: Path) -> None:
    """A link that is open itself leads to itself."""
    code = "mount('/run', folder); f = os.open(folder, 0); os.chdir(folder)\n"
    code += "os.symlink('x', sys.argv[1] + 'l'); g = os.open(sys.argv[1] + 'l', os.O_PATH | os.O_NOFOLLOW); ready()"
    assert found_in(MOUNT % folder + code) == set()


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(
            "f = os.open('/proc/self/ns/net', 0); os.chdir('/proc/self/task'); ready()", id="its own"
        ),
        pytest.param("threading.Thread(target=signal.pause, daemon=True).start(); ready()", id="threads"),
        pytest.param("if os.fork() == 0: signal.pause()\nready()", id="processes"),
        pytest.param(EPOLL + "ready()", id="both open"),
        pytest.param(EPOLL + "epoll.register(w, ONE); ready()", id="armed"),
        pytest.param("os.eventfd(3); d = os.open('/tmp', 0); ready()", id="a counter, a directory"),
        pytest.param(EPOLL + "os.close(r); ready()", id="copy that nobody watches"),
        pytest.param(UNIX + "a.setsockopt(1, 16, 1); ready()", id="nothing waits"),
        pytest.param(UNIX + "b.send(b'x'); ready()", id="nobody wants credentials"),
        pytest.param(SEMAPHORE + "libc.semctl(number, 0, 0); ready()", id="semaphores that are gone"),
        pytest.param(
            "a = socket.socket(2, 2); a.bind(('', 0)); b = socket.socket(10, 2); ready()", id="no group"
        ),
        pytest.param(LARGE % ((8 << 40) - 4096, 3) + LARGE % (9 << 40, 0) + "ready()", id="less than 8 TiB"),
        pytest.param(UNIX + "c = socket.socket(1, 2); ready()", id="a pair of root, a socket of nobody"),
        pytest.param(RAW + "os.write(m, b'in'); os.read(s, 9); ready()", id="a raw terminal"),
        pytest.param(WATCH % "0x1000fff" + "ready()", id="a watch for all events"),
        pytest.param("p = os.open('/proc/pressure/memory', 0); ready()", id="pressure that is only read"),
        pytest.param("p = open(sys.argv[1] + '.memory.pressure', 'w'); ready()", id="a file of such a name"),
        pytest.param("import subprocess; subprocess.run(['true']); ready()", id="a child that has ended"),
    ],
)
def test_what_is_none(namespace: Namespace, code: str) -> None:
    assert found_in(code) == set()


def test_what_a_busy_server_opens_and_closes_is_not_taken_for_lost() -> None:
    """Between the list of its descriptors and what its epoll watches."""
    with program(CHURN) as pid:
        codes = [one.code for _ in range(20) for one in inventory.process(pid).obstacles]
    assert "epoll-closed" not in codes
