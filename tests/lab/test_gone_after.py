"""What CRIU does not carry and a program can do without: it is moved, and a note says what is gone."""

from __future__ import annotations

import sys

from bad_input_bench import InputBench
from harness.wait import eventually

#: What it has after the move: of an epoll, of either side of a terminal, and of a file; then what an epoll tells.
HAS = """
import ctypes, fcntl, os, pathlib, select, signal, struct, termios, time
libc, ask = ctypes.CDLL(None), lambda fd, call, size: any(fcntl.ioctl(fd, call, bytes(size)))
busy, edge = select.epoll(), select.epoll()
fcntl.ioctl(busy, 0x40088A01, struct.pack("=IHBB", 50, 16, 1, 0))
(m, s), (n, t), (r, w) = os.openpty(), os.openpty(), os.pipe()
fcntl.ioctl(s, termios.TIOCEXCL), fcntl.ioctl(n, termios.TIOCEXCL)
f = os.open("/run/hinted", os.O_CREAT | os.O_RDWR)
fcntl.fcntl(f, 1036, struct.pack("=Q", 2))
edge.register(r, select.EPOLLIN | select.EPOLLET)
os.write(w, b"x")
assert edge.poll(0) and not edge.poll(0)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
timer = ctypes.c_void_p()
libc.timer_create(1, struct.pack("=QiiI44x", 0, signal.SIGRTMIN, 0, 0), ctypes.byref(timer))
libc.timer_settime(timer, 0, struct.pack("=qqqq", 0, 10_000_000, 0, 10_000_000), None)
time.sleep(0.5); signal.sigwaitinfo({signal.SIGRTMIN})
assert libc.timer_getoverrun(timer) > 10
time.sleep(0.5)
pathlib.Path("/run/begun").touch()
while not os.path.exists("/run/tell"): time.sleep(0.01)
again = len(edge.poll(0))
signal.sigwaitinfo({signal.SIGRTMIN})
over = libc.timer_getoverrun(timer)
has = [ask(busy, 0x80088A02, 8), ask(s, 0x80045440, 4), ask(n, 0x80045440, 4), any(fcntl.fcntl(f, 1035, bytes(8)))]
pathlib.Path("/run/told.new").write_text(f"{has} {again} {over}")
os.rename("/run/told.new", "/run/told")
time.sleep(1000)
"""


def test_what_is_gone_after_the_move(bench: InputBench) -> None:
    with bench.program(bench.origin, sys.executable, "-c", HAS) as pid:
        eventually(lambda: "begun" in bench.names(bench.origin, "/run"), "it has all of it")
        found = bench.migrate("--copy-files", pid, "destination")
        assert (found.status, found.report["outcome"]) == (0, "MOVED"), found
        bench.write(bench.destination, "/run/tell", "")
        eventually(lambda: "told" in bench.names(bench.destination, "/run"), "it was told")
        told = bench.read(bench.destination, "/run/told")
        bench.destination.exec(["rm", "/run/told", "/run/tell", "/run/hinted"])
        bench.origin.exec(["rm", "-f", "/run/hinted", "/run/begun"])
        bench.end_there(found)
    assert told == "[False, False, False, False] 1 0"
    for word in ("EPIOCSPARAMS", "/dev/pts/0 that nobody", "/dev/pts/1 that nobody", "F_SET_RW_HINT"):
        assert any(word in note for note in found.report["notes"]), word
