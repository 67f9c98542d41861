"""What a process outside of the tree holds as well is found, by its kind, and who; what only seems so is not."""

from __future__ import annotations

import os

import pytest
from netns import Namespace
from programs import program

from migrate import inventory
from migrate.checks.obstacles import NOTES, WORDS
from migrate.inventory import open_files, proc
from migrate.pb.session_pb2 import File, Obstacle
from tcpcp.criu import tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces")

#: Starts a process that is nobody's child, and has but those of our descriptors; it ends with our process group.
OUTSIDER = """
import mmap, select
folder = os.path.dirname(sys.argv[1])
def outsider(*kept, begin=lambda: None, then=signal.pause):
    if os.fork() == 0:
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(15, b"outsider")
            [os.close(fd) for fd in range(3, 40) if fd not in kept and os.path.exists(f"/proc/self/fd/{fd}")]
            more = begin()
            open(folder + "/new", "w").write(str(os.getpid())); os.rename(folder + "/new", folder + "/there")
            then()
        os._exit(0)
    os.wait()
    while not os.path.exists(folder + "/there"): time.sleep(0.01)
    return int(open(folder + "/there").read())
def ended(pid):
    try: known = os.pidfd_open(pid)
    except ProcessLookupError: return
    select.select([known], [], []); os.close(known)
"""
PIPE = "r, w = os.pipe()\n"
UNIX = "a, b = socket.socketpair()\n"
TCP = """
l = socket.socket(); l.bind(("127.0.0.1", 0)); l.listen()
c = socket.create_connection(l.getsockname()); s, _ = l.accept()
"""
DATAGRAMS = """
u = socket.socket(2, 2); u.bind(("127.0.0.1", 0)); v = socket.socket(2, 2); v.connect(u.getsockname())
"""
FILE = "f = os.open(folder + '/file', {}); os.write(f, b'x')\n"
MEMORY = "f = os.memfd_create('m', {}); os.ftruncate(f, 4096)\n"
TIMER = "f = ctypes.CDLL(None).timerfd_create(1, 0)\n"
RW, W = "os.O_RDWR | os.O_CREAT", "os.O_WRONLY | os.O_CREAT"


def found_in(code: str) -> list[Obstacle]:
    """What is told of others, by the check and in the freeze."""
    with program(OUTSIDER + code) as pid:
        others = [one for one in inventory.process(pid).obstacles if one.code.endswith("-outside")]
        again = open_files.again(tree.tasks(pid), (), ()).obstacles
        bystanders = frozenset(proc.pids())
        since = open_files.again(tree.tasks(pid), (), (), bystanders).obstacles
    assert {one.code for one in again if one.code.endswith("-outside")} == {one.code for one in others}
    assert [one for one in since if one.code.endswith("-outside") and one.code != "fifo-outside"] == []
    return others


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        pytest.param(PIPE + "outsider(w); ready()", "pipe-outside", id="pipe"),
        pytest.param(UNIX + "outsider(b.fileno()); ready()", "socket-outside", id="unix connection"),
        pytest.param(TCP + "outsider(s.fileno()); ready()", "socket-outside", id="TCP connection"),
        pytest.param(TCP + "outsider(l.fileno()); ready()", "listener-outside", id="listener"),
        pytest.param(DATAGRAMS + "outsider(v.fileno()); ready()", "socket-outside", id="UDP with a peer"),
        pytest.param(DATAGRAMS + "outsider(u.fileno()); ready()", "listener-outside", id="UDP port"),
        pytest.param("f = os.eventfd(0); outsider(f); ready()", "eventfd-outside", id="eventfd"),
        pytest.param("m = mmap.mmap(-1, 4096); outsider(); ready()", "memory-outside", id="no descriptor"),
        pytest.param(MEMORY.format(0) + "outsider(f); ready()", "memory-outside", id="memfd"),
        pytest.param(
            MEMORY.format(0) + "m = mmap.mmap(f, 4096); outsider(); ready()",
            "memory-outside",
            id="memfd mapped",
        ),
        pytest.param(
            FILE.format(RW) + "os.unlink(folder + '/file'); outsider(f); ready()",
            "memory-outside",
            id="deleted file",
        ),
        pytest.param(
            "os.mkfifo(folder + '/p'); f = os.open(folder + '/p', os.O_RDWR); outsider(f); ready()",
            "fifo-outside",
            id="named pipe",
        ),
        pytest.param(
            "import pty; m, s = pty.openpty(); outsider(s); os.close(s); ready()",
            "terminal-outside",
            id="slave",
        ),
        pytest.param(
            "import pty; m, s = pty.openpty(); outsider(m); ready()", "terminal-outside", id="master"
        ),
        pytest.param(TIMER + "outsider(f); ready()", "descriptor-outside", id="timer"),
        pytest.param("f = select.epoll(); outsider(f.fileno()); ready()", "descriptor-outside", id="epoll"),
        pytest.param(
            "f = os.open('/etc/passwd', 0); fcntl.flock(f, 2); outsider(f); ready()",
            "offset-outside",
            id="position",
        ),
        pytest.param(FILE.format(W) + "outsider(f); ready()", "offset-outside", id="log"),
        pytest.param(
            FILE.format(RW).replace("/file", "/f (deleted)") + "outsider(f); ready()",
            "offset-outside",
            id="a name that ends as if it were none",
        ),
        pytest.param(
            FILE.format(W) + "outsider(begin=lambda: os.open(folder + '/file', 1)); ready()",
            "writer-outside",
            id="log of two",
        ),
    ],
)
def test_what_is_held(namespace: Namespace, code: str, kind: str) -> None:
    found = found_in(code)
    assert {one.code for one in found} == {kind}
    assert len(found) == 1 and "outsider (PID " in found[0].what
    assert kind in WORDS or kind in NOTES


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(PIPE + UNIX + TCP + TIMER + "e = os.eventfd(0); outsider(); ready()", id="nothing kept"),
        pytest.param(
            PIPE + "e = os.eventfd(0)\nif os.fork() == 0: signal.pause()\nready()", id="a child of the tree"
        ),
        pytest.param(PIPE + "ended(outsider(w, then=lambda: None)); ready()", id="it has ended"),
        pytest.param(
            "e, f = os.eventfd(0), os.eventfd(0); outsider(begin=lambda: os.eventfd(0)); ready()",
            id="eventfds of their own",
        ),
        pytest.param(
            MEMORY.format("os.MFD_ALLOW_SEALING") + "fcntl.fcntl(f, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)\n"
            "outsider(f); ready()",
            id="sealed memory",
        ),
        pytest.param(
            "f = os.open('/etc/passwd', 0); outsider(begin=lambda: os.open('/etc/passwd', 0)); ready()",
            id="both read",
        ),
        pytest.param(
            "l = socket.socket(1, 2); l.bind(''); u = socket.socket(1, 2); u.connect(l.getsockname())\n"
            "outsider(u.fileno(), l.fileno()); l.close(); ready()",
            id="both send to a log",
        ),
    ],
)
def test_what_is_not(namespace: Namespace, code: str) -> None:
    assert found_in(code) == []


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(FILE.format(RW) + "outsider(f); ready()", id="open"),
        pytest.param(
            FILE.format(RW)
            + "os.ftruncate(f, 4096); m = mmap.mmap(f, 4096); outsider(); os.closerange(3, 40); ready()",
            id="mapped",
        ),
    ],
)
def test_who_writes_a_file_that_is_read_back(namespace: Namespace, code: str) -> None:
    with program(OUTSIDER + code) as pid:
        files = inventory.process(pid).files
        since = open_files.again(tree.tasks(pid), (), ()).files
    for found in (files, since):
        (file,) = (one for one in found if one.writers)
        assert file.path.endswith("/file") and file.use in (File.OPEN, File.MAPPED)
        assert len(file.writers) == 1 and file.writers[0].startswith("outsider (PID ")


def test_one_that_ends_in_a_moment(namespace: Namespace) -> None:
    """As between fork(2) and exec(2): a program that starts others all the time can be moved."""
    code = PIPE + "outsider(w, then=lambda: time.sleep(0.1)); ready()"
    with program(OUTSIDER + code) as pid:
        assert list(inventory.process(pid).obstacles) == []


def test_systemd_only_keeps(namespace: Namespace) -> None:
    code = TCP + "outsider(s.fileno(), begin=lambda: ctypes.CDLL(None).prctl(15, b'systemd')); ready()"
    (one,) = found_in(code)
    assert one.code == "descriptor-outside" and one.what.startswith("socket, systemd (PID ")
