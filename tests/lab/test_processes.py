"""What is moved besides connections: threads, trees, PIDs, files, options of sockets."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator

import pytest
from harness.hosts import connect, spawn, ss
from harness.left import processes
from harness.migrate import move, run_migrate
from harness.wait import eventually
from harness.workloads import WORKLOADS, Client, drive_numbered

from migrate.lab import Lab

pytestmark = pytest.mark.usefixtures("clean")

NUMBERED, OBEDIENT = str(WORKLOADS / "numbered.py"), str(WORKLOADS / "obedient.py")
PORT = 7200
LOG = "/tmp/accepted.log"


def start(lab: Lab, *command: str, first_pid: int | None = None, log: str | None = None) -> int:
    """Start a server on origin and wait until it listens on both families."""
    origin = lab.hosts["origin"]
    pid = spawn(origin, [sys.executable, *command], first_pid=first_pid, log=log)
    eventually(lambda: len(ss(origin, "-l", f"sport = {PORT}")) == 2, "the server listens")
    return pid


def assert_goes_on(client: Client) -> None:
    """All streams go on without an error."""
    before = client.ask()
    assert before["errors"] == []
    eventually(lambda: client.ask()["least_received"] > before["least_received"] + 20, "all streams go on")
    assert client.stop()["errors"] == []


def owners(lab: Lab, where: str) -> set[int]:
    """PIDs that have connections of the server, as the host numbers them."""
    shown = lab.hosts[where].exec(["ss", "-tnpH", "state", "established", f"sport = {PORT}"]).stdout
    return {int(words.split(",")[0]) for words in shown.split("pid=")[1:]}


def threads_that_wait(lab: Lab, where: str) -> int:
    """How many of the server's threads wait for connections."""
    shown = lab.hosts[where].exec(["ps", "-eL", "-ww", "-o", "wchan:20=,args="]).stdout
    return sum("numbered.py" in line and "poll" in line.split()[0] for line in shown.splitlines())


def test_threads(lab: Lab) -> None:
    pid = start(lab, NUMBERED, "serve", str(PORT), "5")
    client = drive_numbered(lab, PORT, 6)
    threads = lab.hosts["origin"].exec(["ps", "-L", "-o", "lwp=", str(pid)]).stdout.split()
    assert len(threads) == 6
    moved = move(lab, pid)
    # Dead threads stay while CRIU traces them; nobody may wait for them before it has let go.
    assert moved.report["phases_ms"]["origin"]["release"] < 4000
    assert lab.hosts["destination"].exec(["ps", "-L", "-o", "lwp=", str(pid)]).stdout.split() == threads
    assert_goes_on(client)


def test_tree(lab: Lab) -> None:
    pid = start(lab, NUMBERED, "serve", str(PORT), "1", "3")
    # Else those that are there first take all connections.
    eventually(lambda: threads_that_wait(lab, "origin") == 4 * 2, "all of them wait for connections")
    clients = [drive_numbered(lab, PORT, 12)]
    while len(holding := owners(lab, "origin")) == 1 and len(clients) < 6:
        # On a busy machine one may still be quicker than all others.
        clients.append(drive_numbered(lab, PORT, 12))
    assert len(holding) > 1
    tree = lab.hosts["origin"].exec(["ps", "-e", "-o", "pid=,ppid=,args="]).stdout.splitlines()
    before = sorted(line.split() for line in tree if "numbered.py" in line)
    assert len(before) == 4
    moved = move(lab, pid)
    assert moved.report["connections"] == 24 * len(clients)
    tree = lab.hosts["destination"].exec(["ps", "-e", "-o", "pid=,ppid=,args="]).stdout.splitlines()
    assert sorted(line.split() for line in tree if "numbered.py" in line) == before
    assert owners(lab, "destination") == holding
    assert not [words for words in processes(lab.hosts["origin"]).values() if "numbered.py" in words]
    for client in clients:
        assert_goes_on(client)


def test_pid_taken(lab: Lab) -> None:
    """A tree whose PID is taken gets a PID namespace, and keeps its numbers in there."""
    pid = start(lab, NUMBERED, "serve", str(PORT), "1", "1")
    other = spawn(lab.hosts["destination"], ["sleep", "1000"], first_pid=pid)
    assert other == pid
    client = drive_numbered(lab, PORT, 3)
    stays = run_migrate(lab.hosts["origin"], str(pid), "destination", "--stop-at", "FROZEN", "--max-gap", "3")
    assert stays.report["outcome"] == "ROLLED_BACK"
    assert not [note for note in stays.report["notes"] if "PID file" in note], "it has no PID there"
    moved = move(lab, pid)
    there = moved.report["destination_pid"]
    assert there != pid
    assert any(
        "sleep" in note and f"PID file or script that says {pid}" in note for note in moved.report["notes"]
    )
    destination = lab.hosts["destination"]
    assert "numbered.py" in processes(destination)[there]
    seen = destination.exec(["grep", "NSpid", f"/proc/{there}/status"]).stdout.split()
    assert seen == ["NSpid:", str(there), str(pid)]
    assert processes(destination)[other] == "sleep 1000"
    serving = {number for number, words in processes(destination).items() if "numbered.py" in words}
    assert len(serving) == 2
    # Which of the two accepted which connection is chance.
    assert set() < owners(lab, "destination") <= serving
    assert_goes_on(client)
    destination.exec(["kill", "-9", *map(str, serving)])
    eventually(lambda: list(processes(destination)) == [other], "the namespace ends with its tree")


def plan(sock: socket.socket, **words: object) -> None:
    """Tell the process what to do with this connection."""
    sock.sendall(json.dumps(words).encode() + b"\n")


def question(lab: Lab, word: str, *, source: str = "peer") -> dict[str, dict[str, object]]:
    """Ask the process over a new connection from *source*."""
    with connect(lab.hosts[source], lab.service.ipv4, PORT) as sock:
        plan(sock, ask=word)
        return dict(json.loads(sock.makefile("rb").read()))


def test_listener_and_log(lab: Lab) -> None:
    """New clients are accepted after the move, and the log that the process writes goes on with them."""
    origin, destination = lab.hosts["origin"], lab.hosts["destination"]
    pid = start(lab, OBEDIENT, str(PORT), LOG)
    with connect(lab.hosts["peer"], lab.service.ipv4, PORT) as sock:
        plan(sock, name="one")
        eventually(lambda: question(lab, "report"), "a connection is served")
        before = origin.exec(["cat", LOG]).stdout
        refused = run_migrate(origin, str(pid), "destination")
        assert (refused.status, [one["code"] for one in refused.report["reasons"]]) == (3, ["no-file"])
        assert LOG in refused.report["reasons"][0]["text"]
        move(lab, pid, "--copy-files")
        neighbour = lab.hosts["neighbour"].ipv4
        with connect(lab.hosts["peer"], lab.service.ipv4, PORT, source=neighbour) as new:
            plan(new, name="two")
            eventually(lambda: len(question(lab, "report")) == 2, "a new client is served")
        after = destination.exec(["cat", LOG]).stdout
        assert after.startswith(before + f"accepted from {neighbour}\n")
        assert origin.exec(["cat", LOG]).stdout == before
    destination.exec(["rm", LOG])


def test_working_directory_missing(lab: Lab) -> None:
    origin = lab.hosts["origin"]
    origin.exec(["mkdir", "-p", "/srv/only/here"])
    pid = start(
        lab, "-c", f"import os; os.chdir('/srv/only/here'); os.execv('{sys.executable}', {_argv()!r})"
    )
    refused = run_migrate(origin, "--address", lab.service.ipv4, str(pid), "destination")
    assert refused.status == 3
    reasons = refused.report["reasons"]
    assert [(one["code"], one["role"]) for one in reasons] == [("no-working-directory", "destination")]
    assert "mkdir -p /srv/only/here" in reasons[0]["remedy"]
    lab.hosts["destination"].exec(["mkdir", "-p", "/srv/only/here"])
    moved = run_migrate(origin, "--address", lab.service.ipv4, str(pid), "destination")
    assert moved.report["outcome"] == "MOVED", moved.report
    cwd = lab.hosts["destination"].exec(["readlink", f"/proc/{pid}/cwd"]).stdout
    assert cwd == "/srv/only/here\n"


def _argv() -> list[str]:
    return [sys.executable, OBEDIENT, str(PORT)]


def test_other_user(lab: Lab) -> None:
    """CRIU needs CAP_SYS_RESOURCE for processes of other users: that is said before the freeze."""
    origin = lab.hosts["origin"]
    capable = origin.exec(["capsh", "--has-p=cap_sys_resource"], check=False).returncode == 0
    pid = spawn(origin, ["setpriv", "--reuid=65534", "--clear-groups", "sleep", "1000"])
    checked = run_migrate(origin, "--check", str(pid), "destination")
    codes = [one["code"] for one in checked.report["reasons"]]
    assert (checked.status, codes) == ((0, []) if capable else (3, ["limits"]))


TCP = socket.IPPROTO_TCP
COMMON = (
    (TCP, socket.TCP_NODELAY, 1),
    (TCP, socket.TCP_KEEPIDLE, 77),
    (TCP, socket.TCP_KEEPINTVL, 7),
    (TCP, socket.TCP_KEEPCNT, 3),
    (TCP, socket.TCP_USER_TIMEOUT, 12345),
    (TCP, socket.TCP_NOTSENT_LOWAT, 65536),
    (TCP, socket.TCP_LINGER2, 33),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.SOL_SOCKET, socket.SO_PRIORITY, 3),
    (socket.SOL_SOCKET, socket.SO_MARK, 42),
)
ONLY_IPV4 = ((socket.IPPROTO_IP, socket.IP_TOS, 0x10), (socket.IPPROTO_IP, socket.IP_TTL, 33))
ONLY_IPV6 = (
    (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0x20),
    (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 44),
)


def test_options(lab: Lab) -> None:
    """Congestion control and options are those of each socket; the process itself reads them back."""
    pid = start(lab, OBEDIENT, str(PORT))
    socks, wanted = [], {}
    for algorithm in ("reno", "cubic", "bbr"):
        for address, own in ((lab.service.ipv4, ONLY_IPV4), (lab.service.ipv6, ONLY_IPV6)):
            sock = connect(lab.hosts["peer"], address, PORT)
            options = [*COMMON, *own, (TCP, socket.TCP_CONGESTION, algorithm)]
            # TOS sets the priority, so that comes last.
            wanted[f"{algorithm} {address}"] = sorted(map(list, options), key=lambda one: one[1] == 12)
            plan(sock, name=f"{algorithm} {address}", options=wanted[f"{algorithm} {address}"])
            socks.append(sock)
    eventually(lambda: len(question(lab, "report")) == len(wanted), "every connection is served")
    before = {one["peer"]: one for one in ss(lab.hosts["origin"], "-n", f"sport = {PORT}")}
    move(lab, pid)
    after = {one["peer"]: one for one in ss(lab.hosts["destination"], "-n", f"sport = {PORT}")}
    report = question(lab, "report")
    for sock in socks:
        shown = {
            one["peer"]: one for one in after.values() if one["peer"].endswith(f":{sock.getsockname()[1]}")
        }
        for peer, one in shown.items():
            for key in ("congestion", "mss", "wscale"):
                assert one.get(key) == before[peer].get(key), (peer, key)
        sock.close()
    for name, options in wanted.items():
        assert report[name]["error"] == ""
        assert report[name]["options"] == options, name


@pytest.fixture
def beyond(lab: Lab) -> Iterator[None]:
    """The origin's sysctls are more than any socket can be given (tcp(7))."""
    names = {"tcp_keepalive_time": 86400, "tcp_keepalive_intvl": 40000, "tcp_keepalive_probes": 200}
    names["tcp_fin_timeout"] = 180
    origin = lab.hosts["origin"]
    before = [origin.exec(["sysctl", f"net.ipv4.{name}"]).stdout.replace(" ", "").strip() for name in names]
    origin.exec(["sysctl", "-qw", *(f"net.ipv4.{name}={value}" for name, value in names.items())])
    yield
    origin.exec(["sysctl", "-qw", *before])


def test_sysctls_beyond_what_can_be_set(lab: Lab, beyond: None) -> None:
    """CRIU's images have them as if they had been set, of listeners too, and to set them is refused."""
    pid = start(lab, NUMBERED, "serve", str(PORT), "1")
    client = drive_numbered(lab, PORT, 2)
    move(lab, pid)
    assert_goes_on(client)
