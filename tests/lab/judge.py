"""Judges of a migration that are not ours: ``ss``, ``ip``, ``nft``, ps; :mod:`captures` has the peer's capture.

And what the lab tests share: running ``migrate``, connections whose peer is the test itself, and putting the
lab back as it was, after looking that the migration has left nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from patience import FACTOR

from migrate.lab import Host, Lab

WORKLOADS = Path(__file__).resolve().parent.parent / "workloads"
DEADLINE_S = 15.0 * FACTOR
MOVERS = ("origin", "destination")
#: What a host has running by itself.
OWN = ("init.py hold", "/usr/sbin/sshd", "lab keeper")
_CLONE_NEWNET = 0x40000000


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Wait until *condition* gives something true, and return it."""
    deadline = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {deadline_s} s: {what}"
        time.sleep(0.005)
    return found


# --- processes ------------------------------------------------------------------------------------------


def spawn(host: Host, command: list[str], *, first_pid: int | None = None, log: str | None = None) -> int:
    """Start *command* on *host* with a PID that no other host of the lab has in use.

    :param first_pid: its PID if that is free.
    """
    number = first_pid or spawn.following  # type: ignore[attr-defined]
    spawn.following = number + 200  # type: ignore[attr-defined]
    host.exec(["sh", "-c", f"echo {number - 2} > /proc/sys/kernel/ns_last_pid"])
    return host.spawn(command, log=log)


spawn.following = 20_000  # type: ignore[attr-defined]


def processes(host: Host) -> dict[int, str]:
    """PID -> command line of everything on *host* but what belongs to the host itself."""
    lines = host.exec(["ps", "-e", "-ww", "-o", "pid=,args="]).stdout.splitlines()
    found = {int(line.split()[0]): line.split(None, 1)[1] for line in lines}
    own = ("ps -e", *OWN)
    return {
        pid: words
        for pid, words in found.items()
        if not any(word in words for word in own) and not is_kernels(words)
    }


def is_kernels(words: str) -> bool:
    """Whether a machine's ps shows a thread of its kernel so; the lab of namespaces has none."""
    return words.startswith("[") and not words.endswith("<defunct>")


# --- migrations -----------------------------------------------------------------------------------------


class Moved(NamedTuple):
    """What a run of ``migrate --json`` said.

    :ivar began, ended: seconds since the epoch, as captures count.
    """

    status: int
    report: dict[str, Any]
    stderr: str
    began: float
    ended: float


def run_migrate(host: Host, *words: str, timeout_s: float = 60 * FACTOR, program: str = "migrate") -> Moved:
    """Run ``migrate --json`` on *host* to its end, whatever that is.

    :param timeout_s: when to give up a test that hangs; not how fast it has to be.
    """
    began = time.time()
    done = host.exec([program, "--json", *words], check=False, timeout=timeout_s)
    ended = time.time()
    lines = done.stdout.splitlines()
    assert lines, f"migrate said nothing: {done.stderr}"
    report = json.loads(lines[-1])
    assert report["event"] == "report"
    return Moved(done.returncode, report, done.stderr, began, ended)


def move(lab: Lab, pid: int, *options: str, start: str = "origin", timeout_s: float = 60 * FACTOR) -> Moved:
    """Move *pid* from *start* to the other host; it must succeed, and be told so truthfully."""
    end = MOVERS[1 - MOVERS.index(start)]
    moved = run_migrate(lab.hosts[start], *options, str(pid), end, timeout_s=timeout_s)
    report = moved.report
    assert moved.status == 0, json.dumps(report, indent=1) + moved.stderr
    assert report["outcome"] == "MOVED"
    assert report["destination_pid"] in processes(lab.hosts[end])
    assert_service_on(lab, end, all_of_it=False)
    return moved


# --- what is left behind --------------------------------------------------------------------------------


def addresses(host: Host) -> set[str]:
    """Every address of *host*, says ``ip``."""
    found = json.loads(host.exec(["ip", "-json", "address"]).stdout)
    return {info["local"] for interface in found for info in interface["addr_info"]}


def assert_service_on(lab: Lab, where: str, *, all_of_it: bool = True) -> None:
    """The service addresses are on *where* alone.

    :param all_of_it: False: one of them may be on the other host, because the process does not use it.
    """
    found = {name: set(lab.service) & addresses(lab.hosts[name]) for name in MOVERS}
    assert sorted(address for one in found.values() for address in one) == sorted(lab.service), found
    assert found[where] == set(lab.service) or (found[where] and not all_of_it), found


def leftovers(host: Host) -> list[str]:
    """What a migration that is over has left on *host*.

    The hidden directories in root's home are the machine's: no test moves anything there, and to look through them
    takes longer than all the rest where they hold tool chains.
    """
    script = """
    nft list tables
    for one in /run/migrate/* /run/migrate-* /dev/shm/*; do
        [ -e "$one" ] && echo "$one"
    done
    find /tmp /srv /root /var/log -xdev -type d -path '/root/.*' ! -name .ssh ! -name '*.migrate-*' -prune \\
        -o -name '*.migrate-*' -print 2>/dev/null
    ip route show table all | grep -w initcwnd
    for one in /sys/class/net/*; do echo "interface ${one##*/}"; done
    """
    ours = {"/run/migrate/probe", "interface lo", "interface eth0"}
    lines = host.exec(["sh", "-c", script], check=False).stdout.splitlines()
    return [line for line in lines if line.strip() not in ours]


def strange_logs(host: Host) -> list[str]:
    """What is in the directory of logs, which is to stay, and is no private file or directory of root's."""
    script = "find /var/log/migrate -printf '%y %m %u %P\\n' 2>/dev/null"
    lines = host.exec(["sh", "-c", script], check=False).stdout.splitlines()
    wanted = re.compile(
        r"d 700 root ([0-9a-f]{12})?|f 600 root [0-9a-f]{12}/(origin|destination)(\.jsonl|-criu-\w+\.log)"
    )
    return [line for line in lines if not wanted.fullmatch(line)]


def helpers(host: Host) -> list[str]:
    """Processes of ours that still run on *host*, but for the init of a PID namespace of a moved tree."""
    ours = re.compile(r"migrate|criu")
    return [
        words for words in processes(host).values() if ours.search(words) and "pid_namespace" not in words
    ]


def assert_nothing_left(lab: Lab) -> None:
    """No rule, file, route, interface or process of a migration is left on either host."""
    for name in MOVERS:
        host = lab.hosts[name]
        assert leftovers(host) == [], name
        assert strange_logs(host) == [], name
        wait_for(lambda host=host: helpers(host) == [], f"the helpers on {name} have ended")


def reset(lab: Lab) -> None:
    """Make the lab as it was when it came up: nothing runs, and the service is on origin."""
    for name in ("peer", *MOVERS):
        _kill_all(lab.hosts[name])
    origin, destination = (lab.hosts[name] for name in MOVERS)
    found = addresses(destination)
    for address in (one for one in lab.service if one in found):
        # The kernel prefers the latest IPv6 address as a source, and that is not to be the service's.
        length, options = ("64", ["nodad", "preferred_lft", "0"]) if ":" in address else ("24", [])
        destination.exec(["ip", "address", "del", f"{address}/{length}", "dev", "eth0"])
        origin.exec(["ip", "address", "add", f"{address}/{length}", "dev", "eth0", *options])
    # Also where the origin has had them back: what a neighbour knows may be of before, and is kept for 10 s.
    for name in ("destination", "gateway", "peer"):
        lab.hosts[name].exec(["ip", "neigh", "flush", "all"])
    assert_service_on(lab, "origin")


def _kill_all(host: Host) -> None:
    def kill() -> bool:
        found = processes(host)
        if found:
            host.exec(["kill", "-9", *map(str, found)], check=False)
        return not found

    wait_for(kill, f"{host.name} is empty")


# --- connections of the test itself ---------------------------------------------------------------------


def connect(host: Host, address: str, port: int, **options: Any) -> socket.socket:
    """A connection whose near end is on *host* and belongs to this process.

    :param options: ``receive_buffer``, bytes; ``source``, an address.
    """
    result: list[socket.socket | BaseException] = []

    def work() -> None:
        try:
            _enter_network(host)
            result.append(_connected(address, port, **options))
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


def _connected(address: str, port: int, *, receive_buffer: int = 0, source: str = "") -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    made.settimeout(DEADLINE_S)
    if receive_buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    if source:
        made.bind((source, 0))
    made.connect((address, port))
    return made


def _enter_network(host: Host) -> None:
    """Move this thread, and no other, into the network of *host*."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(host.netns, os.O_RDONLY)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def patient(lab: Lab, address: str, seconds: int) -> Iterator[None]:
    """What the peer sends to *address* it sends again after so many seconds, not after a fifth of one.

    Then a gap may last as long as it does on a busy machine, and who waits for a timer is told from who does not.
    """
    host = lab.hosts["peer"]
    found = json.loads(host.exec(["ip", "-json", "route", "get", address]).stdout)[0]
    route = ["ip", "route", "add", address, "via", found["gateway"], "dev", found["dev"]]
    host.exec([*route, "rto_min", f"{seconds}s"])
    try:
        yield
    finally:
        host.exec(["ip", "route", "del", address])


def ss(host: Host, *words: str) -> list[dict[str, str]]:
    """TCP sockets of *host* as ``ss`` tells them: state, queues, ends, and its details by name."""
    lines = host.exec(["ss", "-tinoeHOa", *words]).stdout.splitlines()
    return [_ss_line(line) for line in lines]


def _ss_line(line: str) -> dict[str, str]:
    state, received, sent, local, peer, *rest = line.split()
    details = {"state": state, "recv_q": received, "send_q": sent, "local": local, "peer": peer}
    words = " ".join(rest)
    algorithm = re.search(r"(?<= )(cubic|reno|bbr)(?= )", words)
    details["congestion"] = algorithm[0] if algorithm else ""
    return details | dict(re.findall(r"([a-z_]+):(\S+)", words)) | {"all": words}


def ask(client: subprocess.Popen[str], word: str = "") -> dict[str, Any]:
    """Have a client of tests/workloads say how it is."""
    assert client.stdin is not None and client.stdout is not None
    client.stdin.write(word + "\n")
    client.stdin.flush()
    line = client.stdout.readline()
    assert line, f"the client ended: {client.wait(timeout=5)}"
    return dict(json.loads(line))
