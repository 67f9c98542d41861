"""What only the kernel has of a server's connections is waited for, or the server is not moved."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time

import pytest
from harness.hosts import connect, spawn, ss
from harness.migrate import Ran, move, run_migrate
from harness.wait import eventually

from migrate.lab import Lab

pytestmark = pytest.mark.usefixtures("clean")

PORT, KEPT = 7300, 7301
#: Says so many bytes as it is asked for and closes at once; on another port it says what it hears.
SERVER = """
import selectors, socket, sys
once, kept = (socket.create_server((sys.argv[1], int(port))) for port in sys.argv[2:4])
if len(sys.argv) > 4:
    once.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, int(sys.argv[4]))
select = selectors.DefaultSelector()
for one in (once, kept):
    select.register(one, selectors.EVENT_READ)
while True:
    for key, _ in select.select():
        if key.fileobj is once:
            one, _ = once.accept()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            one.sendall(b"x" * int(one.recv(100)))
            one.close()
        elif key.fileobj is kept:
            select.register(kept.accept()[0], selectors.EVENT_READ)
        elif said := key.fileobj.recv(4096):
            key.fileobj.sendall(said)
        else:
            select.unregister(key.fileobj)
            key.fileobj.close()
"""


def serve(lab: Lab, *more: str) -> int:
    origin = lab.hosts["origin"]
    words = [lab.service.ipv4, str(PORT), str(KEPT), *more]
    pid = spawn(origin, [sys.executable, "-c", SERVER, *words])
    eventually(lambda: ss(origin, "-l", f"sport = {KEPT}"), "the server listens")
    return pid


def client(lab: Lab, port: int = PORT) -> socket.socket:
    return connect(lab.hosts["peer"], lab.service.ipv4, port, receive_buffer=8192)


def answered(kept: socket.socket) -> bool:
    kept.sendall(b"still there?")
    return kept.recv(100) == b"still there?"


def unsent(lab: Lab) -> list[dict[str, str]]:
    return ss(lab.hosts["origin"], "state", "fin-wait-1")


def read_all(sock: socket.socket, after_s: float = 0) -> int:
    time.sleep(after_s)
    count = 0
    while some := sock.recv(65536):
        count += len(some)
    return count


def codes(moved: Ran) -> list[str]:
    return [one["code"] for one in moved.report["reasons"]]


def test_an_answer_that_nobody_reads(lab: Lab) -> None:
    """It is refused before anything is touched, and nothing of it is lost."""
    pid = serve(lab)
    with client(lab, KEPT) as kept, client(lab) as slow:
        slow.sendall(b"600000")
        assert answered(kept)
        eventually(lambda: unsent(lab), "the answer is the kernel's own")
        checked = run_migrate(lab.hosts["origin"], "--check", str(pid), "destination")
        assert checked.status == 0
        assert "1 connection that the process has closed" in " ".join(checked.report["notes"])
        moved = run_migrate(lab.hosts["origin"], str(pid), "destination")
        assert (moved.status, codes(moved)) == (3, ["unsent"])
        assert "cut off" in moved.report["reasons"][0]["text"]
        assert read_all(slow) == 600000
        assert answered(kept)


def test_an_answer_that_is_read_late(lab: Lab) -> None:
    """It is waited for, with new connections let in, and the server is moved."""
    pid = serve(lab)
    with client(lab, KEPT) as kept, client(lab) as slow:
        slow.sendall(b"600000")
        assert answered(kept)
        eventually(lambda: unsent(lab), "the answer is the kernel's own")
        counts: list[int] = []
        reader = threading.Thread(target=lambda: counts.append(read_all(slow, after_s=6)))
        reader.start()
        move(lab, pid)
        reader.join()
        assert counts == [600000]
        assert answered(kept)


def test_answers_all_the_time(lab: Lab) -> None:
    """Clients that come, read and go while it is moved get all they asked for."""
    pid = serve(lab)
    origin = lab.hosts["origin"]
    script = (
        "import socket, time\n"
        "end, count = time.time() + 15, 0\n"
        "while time.time() < end:\n"
        f"    sock = socket.create_connection(({lab.service.ipv4!r}, {PORT}))\n"
        "    sock.sendall(b'90000')\n"
        "    got = 0\n"
        "    while some := sock.recv(20000): got += len(some); time.sleep(0.005)\n"
        "    assert got == 90000, got\n"
        "    sock.close(); count += 1\n"
        "print(count)\n"
    )
    asking = [
        lab.hosts["peer"].popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    eventually(lambda: ss(origin, "state", "time-wait", "state", "fin-wait-1"), "clients have come")
    move(lab, pid)
    said = [one.communicate(timeout=40) for one in asking]
    assert all(int(out) > 20 for out, _ in said), said


def test_clients_that_are_deferred(lab: Lab) -> None:
    """Connected, nothing sent: for the kernel they do not exist yet, and the server is not moved meanwhile."""
    pid = serve(lab, "60")
    with client(lab, KEPT) as kept, client(lab) as quiet, client(lab) as other:
        assert answered(kept)
        moved = run_migrate(lab.hosts["origin"], str(pid), "destination")
        assert (moved.status, codes(moved)) == (3, ["deferred"])
        assert "2 clients have connected" in moved.report["reasons"][0]["text"]
        for one in (quiet, other):
            one.sendall(b"7000")
            assert read_all(one) == 7000
        assert answered(kept)


REDIRECT = """
add table ip r
add chain ip r p { type nat hook prerouting priority -100; }
add rule ip r p ip daddr 10.77.1.100 tcp dport 80 dnat to 10.77.1.100:7301
"""


def test_a_redirected_connection(lab: Lab) -> None:
    """The other host knows nothing of the redirection; the connection would be reset."""
    pid = serve(lab)
    origin = lab.hosts["origin"]
    origin.exec(["nft", REDIRECT])
    try:
        with client(lab, 80) as redirected, client(lab, KEPT) as direct:
            assert answered(redirected)
            assert answered(direct)
            moved = run_migrate(origin, str(pid), "destination")
            assert (moved.status, codes(moved)) == (3, ["socket"])
            assert f"{lab.service.ipv4}:80" in moved.report["reasons"][0]["text"]
            assert answered(redirected)
    finally:
        origin.exec(["nft", "delete", "table", "ip", "r"])


RAW = """
import socket, time
one = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
while True:
    time.sleep(0.1)
"""


def test_a_raw_socket_of_tcp(lab: Lab) -> None:
    """It is no connection: CRIU knows all of it."""
    origin, destination = lab.hosts["origin"], lab.hosts["destination"]
    pid = spawn(origin, [sys.executable, "-c", RAW])
    eventually(lambda: origin.exec(["ss", "-Hwna"]).stdout, "the socket is there")
    moved = run_migrate(origin, str(pid), "destination")
    assert (moved.status, moved.report["outcome"]) == (0, "MOVED"), moved.report
    assert ":tcp" in destination.exec(["ss", "-Hwa"]).stdout


IN_FLIGHT = """
import socket, time
here, there = socket.socketpair()
made = socket.create_connection(("{address}", {port}), source_address=("{own}", 0))
socket.send_fds(here, [b"take it"], [made.fileno()])
made.close()
time.sleep(1000)
"""


def test_a_connection_on_its_way_between_processes(lab: Lab) -> None:
    """The connection has an address that moves, and no descriptor names it."""
    peer, origin = lab.hosts["peer"], lab.hosts["origin"]
    listens = "import socket, time; one = socket.create_server(('', 7310)); time.sleep(1000)"
    spawn(peer, [sys.executable, "-c", listens])
    eventually(lambda: ss(peer, "-l", "sport = 7310"), "the peer listens")
    words = IN_FLIGHT.format(address=peer.ipv4, port=7310, own=lab.service.ipv4)
    pid = spawn(origin, [sys.executable, "-c", words])
    eventually(lambda: ss(origin, "state", "established", "dport = 7310"), "it is connected")
    moved = run_migrate(origin, str(pid), "destination")
    assert (moved.status, codes(moved)) == (3, ["in-flight"])
