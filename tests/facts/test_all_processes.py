"""A look over all processes of the host goes on where one of them ends meanwhile, or cannot be read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from migrate.inventory import proc
from migrate.processes import stat
from tcpcp.criu import tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts")

#: Every such look, by name; each as often as its first argument says. Prints the name of what failed, and why.
LOOKS = """
import ctypes, os, pty, resource, signal, socket, subprocess, sys, threading, time
from migrate.inventory import answers, holders, of_its_session, outside, pidfds, proc, terminals, tracing
from migrate.inventory.outside import Things
from migrate.pb.session_pb2 import HostInventory, ProcessInventory, Task
from migrate.processes import identity, made_here, users
from tcpcp.criu import tree
os.setsid()
me, null = os.getpid(), os.stat("/dev/null")
def sockets():
    held = {one.target for one in holders.everywhere() if one.target.startswith("socket:[")}
    holders.of_sockets({int(one[8:-1]) for one in held})
def mappings():
    shared = [(me, one) for one in proc.shared_mappings(me)]
    list(Things({me: tree.descriptors(me)}, outside.Opened(), shared, {}).hits({me}))
def numbers():
    found = HostInventory()
    answers._pids(ProcessInventory(needed_pids=[me]), found)
    assert list(found.taken_pids) == [me]
looks = {
    "tracing": lambda: list(tracing.obstacles({me})),
    "session": lambda: list(of_its_session.obstacles(me, [Task(pid=me, sid=os.getsid(0), pgid=os.getpgid(0))])),
    "numbers": numbers,
    "everywhere": lambda: list(holders.everywhere()),
    "sockets": sockets,
    "files": lambda: holders.of({(null.st_dev, null.st_ino)}),
    "mappings": mappings,
    "pidfds": lambda: list(pidfds.obstacles({me}, ())),
    "terminals": lambda: terminals._holders({"/dev/pts/77"}),
    "users": lambda: users.of("/root/nothing"),
    "writing": lambda: users.writing((null.st_dev, null.st_ino)),
    "mounted": lambda: users.mounted("/root"),
    "environment": lambda: identity.with_environment("NOT=THERE"),
    "made here": lambda: made_here.processes_of([], "NOT=THERE", "/root/nothing"),
}
memory = __import__("mmap").mmap(-1, 4096)
def look(times):
    for name, one in looks.items():
        end = time.monotonic() + 1.5
        for _ in range(times):
            try:
                one()
            except Exception as error:
                print(name, repr(error)[:80], flush=True)
                break
            if time.monotonic() > end:
                break
"""

#: A process with a thread that we trace, and another one before it that cannot be read.
OF_THREADS = """
victim = os.fork()
if victim == 0:
    ctypes.CDLL(None).prctl(1, 9)
    for _ in range(2): threading.Thread(target=signal.pause).start()
    signal.pause()
task = f"/proc/{victim}/task"
while len(os.listdir(task)) < 3: time.sleep(0.01)
first, second, third = sorted(map(int, os.listdir(task)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.ptrace(0x4206, third, None, None) == 0  # PTRACE_SEIZE
subprocess.run(["mount", "--bind", f"/proc/{victim}/mem", f"{task}/{second}/status"], check=True)
print(*(one.code for one in tracing.obstacles({me})))
os.kill(victim, 9)
"""

#: A process whose first thread has ended, and the second, as it seems, since the threads were listed.
OF_A_THREAD = """
ended, victim = os.fork(), 0
if ended == 0: signal.pause()
victim = os.fork()
if victim == 0:
    ctypes.CDLL(None).prctl(1, 9)
    os.eventfd(0)
    for _ in range(2): threading.Thread(target=signal.pause).start()
    ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)
task = f"/proc/{victim}/task"
while len(os.listdir(task)) < 3 or os.listdir(f"/proc/{victim}/fd"): time.sleep(0.01)
_, second, _ = sorted(map(int, os.listdir(task)))
subprocess.run(["mount", "--bind", f"/proc/{ended}/fd", f"/proc/{second}/fd"], check=True)
os.kill(ended, 9); os.waitpid(ended, 0)
its = tree.threads(victim)
print(*(one.target for one in holders.everywhere() if "eventfd" in one.target and one.pid in its))
os.kill(victim, 9)
"""

#: Two processes with something mounted on the directory of the first argument, in a namespace of theirs.
OF_MOUNTS = """
libc, place = ctypes.CDLL(None, use_errno=True), sys.argv[1]
first = os.fork()
if first == 0:
    assert libc.prctl(1, 9) == 0 and libc.unshare(0x20000) == 0
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    os.fork(); libc.prctl(1, 9)
    libc.prctl(15, b"here"); signal.pause()
def here(pid): return open(f"/proc/{pid}/comm").read() == "here\\n"
def children(): return open(f"/proc/{first}/task/{first}/children").read().split()
while not here(first) or not children() or not here(children()[0]): time.sleep(0.01)
subprocess.run(["mount", "--bind", f"/proc/{first}/mem", f"/proc/{first}/mountinfo"], check=True)
print(any(one.startswith(place + " in the mount namespace of") for one in users.mounted(place)))
os.kill(first, 9)
"""

#: A process with what the looks are about, of which *name* in /proc reads as EIO: its memory, from address 0 on.
UNREADABLE = """
victim = os.fork()
if victim == 0:
    kept = os.pidfd_open(os.getppid()), os.open("/dev/ptmx", 2), socket.socketpair()
    ctypes.CDLL(None).prctl(1, 9); signal.pause()
while len(os.listdir(f"/proc/{victim}/fd")) < len(os.listdir("/proc/self/fd")) + 3: time.sleep(0.01)
def bind(what, place): subprocess.run(["mount", "--rbind", what, place], check=True)
name = sys.argv[1]
if name.startswith("fdinfo"):  # nothing can be mounted on one of these, but on all of them
    folder = sys.argv[2]
    for one in os.listdir(f"/proc/{victim}/fd"):
        open(f"{folder}/{one}", "w").close()
        bind(f"/proc/{victim}/mem", f"{folder}/{one}")
    bind(folder, f"/proc/{victim}/fdinfo")
else:
    bind(f"/proc/{victim}/mem", f"/proc/{victim}/{name}")
try: open(f"/proc/{victim}/{name}").read(); print("it can be read")
except OSError as error: assert error.errno == 5
look(1)
os.kill(victim, 9)
"""

#: A process that works, is rooted and has files in a directory whose path no call takes, and an eventfd.
LONG = """
os.chdir(sys.argv[1])
for _ in range(22): os.mkdir("d" * 200); os.chdir("d" * 200)
victim = os.fork()
if victim == 0:
    file = os.open("file", os.O_CREAT | os.O_RDWR)
    os.write(file, b"x" * 4096)
    kept = __import__("mmap").mmap(file, 4096), os.eventfd(0)
    ctypes.CDLL(None).prctl(1, 9); os.chroot("."); signal.pause()
os.chdir("/")
def root_is_there():
    try: return not os.readlink(f"/proc/{victim}/root")
    except OSError as error: return error.errno == 36
while not root_is_there(): time.sleep(0.01)
look(1)
print(*(one.target for one in holders.everywhere() if "eventfd" in one.target and one.pid == victim))
there = os.stat(f"/proc/{victim}/cwd/file")
file = there.st_dev, there.st_ino
print(*{f"(PID {victim})" in one.who for one in holders.of({file}, {me})[file]})
os.kill(victim, 9)
"""

#: Processes that end at once, execute a program, wait to be reaped, or whose first thread has ended.
CHURN = """
def short(kind):
    if kind == 1: os.execv("/bin/true", ["true"])
    if kind == 2: time.sleep(0.02)
    if kind == 3:
        threading.Thread(target=lambda: (time.sleep(0.005), os._exit(0))).start()
        ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)
    os._exit(0)
def churn():
    ctypes.CDLL(None).prctl(1, 9)
    there, count = [], 0
    while True:
        if (pid := os.fork()) == 0: short(count % 4)
        there.append(pid); count += 1
        if len(there) > 6: os.waitpid(there.pop(0), 0)
churning = os.fork() or churn()
look(100)
os.kill(churning, 9)
"""


def failed(code: str, *words: str) -> list[str]:
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", LOOKS + code, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["stat", "status", "maps", "mountinfo", "environ", "fdinfo/3"])
def test_one_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    assert failed(UNREADABLE, name, str(tmp_path)) == []


def test_a_thread_that_cannot_be_read_hides_no_other_one() -> None:
    assert failed(OF_THREADS) == ["tracing"]
    assert failed(OF_A_THREAD) == ["anon_inode:[eventfd]"]


def test_a_process_that_cannot_be_read_hides_no_mounts_of_others(tmp_path: Path) -> None:
    """Two in a mount namespace of their own, of which the first cannot be read, or has just ended."""
    assert failed(OF_MOUNTS, str(tmp_path)) == ["True"]


def test_paths_that_no_call_takes(tmp_path: Path) -> None:
    """Anybody may have one: the other descriptors of that process, and other processes, are seen all the same."""
    assert failed(LONG, str(tmp_path)) == ["anon_inode:[eventfd]", "True"]


def test_many_that_end() -> None:
    assert failed(CHURN) == []


def test_a_shortage_of_ours_is_told() -> None:
    """What is short here, as descriptors are, concerns all processes: none that has the file would be seen."""
    code = """
there = []
while True:
    try: there.append(os.dup(0))
    except OSError: break
os.close(there.pop())  # enough for the list of processes, and not for that of descriptors
try: looks["everywhere"]()
except OSError as error: assert error.errno == 24
else: print("nothing was said")
"""
    assert failed("resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))" + code) == []


def test_links_of_a_process_that_is_gone_seem_not_to_be_permitted() -> None:
    """It has ended for whoever asks for that process, and is no lack of rights."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    link = os.open(f"/proc/{pid}/ns/net", os.O_PATH | os.O_NOFOLLOW)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    try:
        with pytest.raises(PermissionError):
            os.readlink("", dir_fd=link)  # noqa: PTH115
        with pytest.raises(proc.Gone), proc.looking(pid):
            os.readlink("", dir_fd=link)  # noqa: PTH115
        with stat.passing_over():
            os.readlink("", dir_fd=link)  # noqa: PTH115
        with pytest.raises(PermissionError), proc.looking(os.getpid()):
            os.readlink("", dir_fd=link)  # noqa: PTH115
    finally:
        os.close(link)


def test_descriptors_of_a_process_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some kernels say the same of the link to a descriptor, for a moment that no test can hold."""
    pid = os.fork()
    if pid == 0:
        signal.pause()

    def ends(_name: str, *, dir_fd: int) -> str:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise PermissionError(dir_fd)

    monkeypatch.setattr(os, "readlink", ends)
    assert tree.sockets_now([pid]) == []
