"""A server under load, migrations of it that stop to be killed, and what a kill may leave: nothing.

The judges are ``ps``, ``ip``, ``nft``, ``ls`` and ``ss`` on the hosts, and the peer's end of the connections.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

from judge import is_kernels
from patience import FACTOR, NUMBERED

from migrate.lab import Host, Lab

WORKLOADS = Path(__file__).resolve().parent.parent / "workloads"
PORT = 7400
#: Connections of each IP version.
CONNECTIONS = 3
DEADLINE_S = 20.0 * FACTOR
#: A PID that is free on both hosts.
FIRST_PID = 20000
OWN = ("init.py hold", "/usr/sbin/sshd", "sshd-session", "sshd:")
KEEPER = "lab keeper"

_LOOK = """
ps -e -ww -o pid=,ppid=,stat=,args=; echo @@
nft list tables; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all
for ip in 10.77.1.254 fd77:1::fe; do ip -o route get $ip | sed 's/ uid .*//'; done; echo @@
ip -o address | awk '{print $2, $4}'; echo @@
ls -d /run/migrate/* /run/migrate-* /dev/shm/* /tmp/migrate* 2>/dev/null; true
"""


def eventually(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Wait until *condition* gives something true, and return it; *what* may be a function that explains."""
    deadline = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {deadline_s} s: {what}"
        time.sleep(0.01)
    return found


class View:
    """One host at one moment, as its own tools see it.

    :ivar processes: PID -> (state letters, command line), without what belongs to the host itself.
    :ivar network: tables of the packet filter, routing rules and routes.
    :ivar addresses: "interface address/length".
    :ivar files: what lies where migrations keep something.
    """

    def __init__(self, host: Host) -> None:
        parts = host.exec(["sh", "-c", _LOOK]).stdout.split("@@\n")
        self.processes: dict[int, tuple[str, str]] = {}
        lines = [line.split(None, 3) for line in parts[0].splitlines()]
        # What a test runs here, this look too, is the child of a keeper.
        keepers = {pid for pid, _, _, words in lines if KEEPER in words}
        for pid, parent, state, words in lines:
            looking = words.startswith("ps -e") or is_kernels(words) or not {pid, parent}.isdisjoint(keepers)
            if not looking and not any(word in words for word in OWN):
                self.processes[int(pid)] = (state, words)
        # Link-local ones come when duplicate address detection has ended.
        self.network = {line for line in parts[1].splitlines() if line and "fe80:" not in line}
        self.addresses = {line for line in parts[2].splitlines() if "fe80:" not in line}
        self.files = set(parts[3].splitlines()) - {"/run/migrate/probe"}
        for pid, parent, *_ in lines:  # an ssh program by which such a guardian asks
            if self.reminds(self.processes.get(int(parent), ("", ""))):
                self.processes.pop(int(pid), None)

    def reminds(self, process: tuple[str, str]) -> bool:
        """Whether it is a guardian that has settled everything and announces addresses a little longer."""
        words = process[1].split()
        return words[1:3] == ["-m", "migrate.recovery.guardian"] and words[3] not in self.files


class Migration:
    """``migrate --stop-at STATE``, waiting in that state when the constructor returns.

    :ivar driver: its PID on the origin.
    :ivar id: the migration's name, "" before there is a journal.
    """

    def __init__(self, bench: Bench, state: str, *options: str, program: str = "migrate") -> None:
        self.bench = bench
        # What a test does meanwhile counts as gap; where options repeat, the last one holds.
        options = ("--max-gap", str(DEADLINE_S), *options)
        words = [program, "--json", "--stop-at", state, *options, str(bench.pid), "destination"]
        self.process = bench.origin.popen(words, stdout=PIPE, stderr=PIPE, text=True)
        self._lines: list[dict[str, Any]] = []
        note = self._until(lambda line: line.get("text", "").startswith(f"stopped at {state}"))
        self.driver = int(note["text"].split("(driver ")[1].rstrip(")"))
        found = bench.origin.exec(["sh", "-c", "cd /run/migrate && ls -d [0-9a-f]*[0-9a-f]"]).stdout.split()
        self.id = found[-1]

    def _until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for text in self.process.stdout:
            self._lines.append(json.loads(text))
            if wanted(self._lines[-1]):
                return self._lines[-1]
        raise AssertionError(f"{self._lines[-1:]} {self.process.stderr.read()}")

    @property
    def agent(self) -> int:
        """The agent's PID on the destination."""
        return int(self.bench.destination.exec(["pgrep", "-of", "migrate-agent"]).stdout)

    def guardian(self, host: Host) -> int:
        """The guardian's PID."""
        return int(host.exec(["pgrep", "-f", f"migrate.recovery.guardian.*{self.id}"]).stdout)

    def criu(self, host: Host) -> int:
        """The PID of CRIU there, 0 when there is none."""
        found = host.exec(["pgrep", "-ox", "criu"], check=False).stdout.split()
        return int(found[0]) if found else 0

    def kill(self, *victims: str, signal: str = "KILL") -> None:
        """Kill at once those of "driver", "agent", "guardian HOST", "criu HOST"; each must be there."""
        pids: dict[str, list[int]] = {}
        for victim in victims:
            kind, _, where = victim.partition(" ")
            host = self.bench.lab.hosts[where or {"driver": "origin", "agent": "destination"}[kind]]
            pid = {
                "driver": lambda host: self.driver,
                "agent": lambda host: self.agent,
                "guardian": self.guardian,
                "criu": self.criu,
            }[kind](host)
            assert pid, f"no {victim}"
            pids.setdefault(host.name, []).append(pid)
        for name, found in pids.items():
            self.bench.lab.hosts[name].exec(["kill", f"-{signal}", *map(str, found)])

    def wait_for_journal(self, host: Host, state: str) -> None:
        """Wait until the journal on *host* says that *state* was reached."""
        journal = ["cat", f"/run/migrate/{self.id}/journal"]
        eventually(lambda: state in host.exec(journal).stdout, f"{state} on {host.name}")

    def go(self) -> None:
        """Let the driver go on."""
        self.bench.origin.exec(["touch", f"/run/migrate/{self.id}/go"])

    def end(self) -> tuple[int, dict[str, Any]]:
        """Wait for the driver's own end: its exit status and report."""
        report = self._until(lambda line: line["event"] == "report")
        return self.process.wait(timeout=DEADLINE_S), report

    def killed(self) -> None:
        """The driver was killed; reap it."""
        self.process.wait(timeout=DEADLINE_S)
        self.process.stdout.close()


class Bench:
    """A numbered stream over a few connections, from *peer* to a server that is on *origin* at first."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.origin, self.destination, self.peer = (
            lab.hosts[name] for name in ("origin", "destination", "peer")
        )
        self.before = {host.name: View(host) for host in (self.origin, self.destination)}
        self.service = {f"eth0 {lab.service.ipv4}/24", f"eth0 {lab.service.ipv6}/64"}
        self._next_pid = FIRST_PID
        self.pid = 0
        #: Host that has the server and nothing else, as far as is known.
        self.at = ""

    def ready(self) -> Bench:
        """The server runs on origin and nothing else is there, whatever a test has left; take this bench."""
        if not self.at:
            self._sweep()
        if self.at != "origin":
            self.stop()
            self.start()
        self.at = ""
        return self

    def close(self) -> None:
        """Leave nothing, not even a guardian that announces addresses."""
        if not self.at:
            self._sweep()
        self.stop()
        for host in (self.origin, self.destination):
            host.exec(["pkill", "-9", "-f", "[m]igrate.recovery.guardian"], check=False)
        eventually(lambda: not self._guardians(), "the last guardian has ended", 30)

    def _sweep(self) -> None:
        """Remove by force what a test that failed has left."""
        script = """
        pkill -9 -f '[m]igrate-agent|[m]igrate.recovery.guardian|[m]igrate.processes.keeping|bin/[m]igrate '
        pkill -9 -x criu
        for table in $(nft list tables | awk '/ (cut|tcpcp-.*|migrate-.*)$/ {print $2 ":" $3}'); do
            nft delete table ${table%:*} ${table#*:}
        done
        for id in $(ls /run/migrate); do  # beside cgroups of other labs on this machine
            [ -d /sys/fs/cgroup/migrate-$id ] && cd /sys/fs/cgroup/migrate-$id || continue
            echo 0 > cgroup.freeze; for pid in $(cat cgroup.procs); do echo $pid > ../cgroup.procs; done
            rmdir ../migrate-$id
        done
        rm -rf /run/migrate/[0-9a-f]*[0-9a-f] /dev/shm/migrate-* /run/migrate-*
        """
        for host in (self.origin, self.destination):
            host.exec(["sh", "-c", script], check=False)

    def start(self) -> None:
        """Start the server on origin, and its peer."""
        self.choose_pids()
        script = str(WORKLOADS / "numbered.py")
        self.pid = self.origin.spawn([*NUMBERED, sys.executable, script, "serve", str(PORT)])
        listening = ["ss", "-Hltn", f"sport = :{PORT}"]
        eventually(lambda: self.origin.exec(listening).stdout.count("\n") == 2, "the server listens")
        where = [word for ip in self.lab.service for word in (ip, str(CONNECTIONS))]
        command = [*NUMBERED, sys.executable, script, "drive", str(PORT), *where]
        self.drive = self.peer.popen(command, stdin=PIPE, stdout=PIPE, text=True)
        assert self.drive.stdout.readline() == "ready\n", self._network()

    def _network(self) -> str:
        """What each host knows of its neighbours, addresses and packet filter."""
        script = "ip neigh; ip -br address; nft list ruleset"
        names = ("origin", "destination", "gateway", "peer")
        return "\n".join(
            f"{name}: {self.lab.hosts[name].exec(['sh', '-c', script]).stdout}" for name in names
        )

    def choose_pids(self) -> None:
        """The server gets a number that nobody on destination gets by chance: what a test does to that number
        there would else be done to a stranger, its agent for one."""
        self._next_pid += 500
        self.origin.exec(["sh", "-c", f"echo {self._next_pid} > /proc/sys/kernel/ns_last_pid"])
        self.destination.exec(["sh", "-c", "echo 300 > /proc/sys/kernel/ns_last_pid"])

    def stop(self) -> None:
        """End both, wherever the server is, and put the service addresses back on origin."""
        self.at = ""
        if not self.pid:
            return
        self.drive.stdin.close()
        self.drive.wait(timeout=DEADLINE_S)
        for host in (self.origin, self.destination):
            host.exec(["pkill", "-9", "-f", f"numbered.py serve {PORT}"], check=False)
        self.pid = 0
        if not self.service <= View(self.origin).addresses:
            self._give_addresses_back()
        # Also where the origin has had them back: what a neighbour knows may be of before, and is kept for 10 s.
        for host in ("gateway", "destination", "peer"):
            self.lab.hosts[host].exec(["ip", "neigh", "flush", "all"])

    def _give_addresses_back(self) -> None:
        """The service addresses are on origin again."""
        for ip, bits in zip(self.lab.service, (24, 64), strict=True):
            self.destination.exec(["ip", "address", "del", f"{ip}/{bits}", "dev", "eth0"], check=False)
            # An IPv6 address that is added comes first, and would be the host's own choice.
            extra = ["nodad", "preferred_lft", "0"] if bits == 64 else []
            words = ["ip", "address", "add", f"{ip}/{bits}", "dev", "eth0", *extra]
            self.origin.exec(words, check=False)

    @contextlib.contextmanager
    def cut(self, hooks: tuple[str, ...] = ("input", "output")) -> Iterator[None]:
        """The SSH connection between origin and destination is cut: its packets vanish, in both directions.

        :param hooks: only those that come to the origin (input), or leave it (output).
        """
        rules = {"input": "tcp sport 22 drop", "output": "tcp dport 22 drop"}
        chains = [
            f"chain {hook} {{ type filter hook {hook} priority -500; {rules[hook]}; }}" for hook in hooks
        ]
        self.origin.exec(["nft", "\n".join(["table inet cut {", *chains, "}"])])
        try:
            yield
        finally:
            self.origin.exec(["nft", "delete table inet cut"])

    def migrate(
        self, *words: str, host: str = "origin", program: str = "migrate"
    ) -> tuple[int, dict[str, Any]]:
        """Run ``migrate --json`` with *words* to its end: exit status and report."""
        done = self.lab.hosts[host].exec([program, "--json", *words], check=False)
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    def ask(self) -> dict[str, Any]:
        """What the peer has seen so far."""
        self.drive.stdin.write("\n")
        self.drive.stdin.flush()
        return dict(json.loads(self.drive.stdout.readline()))

    def assert_streams(self) -> float:
        """Every connection carries new numbers both ways, and none has seen a wrong one.

        :return: how long that took, seconds.
        """
        began = time.monotonic()
        before = self.ask()["each_received"]
        waiting = {str(number) for number in range(len(before))}

        def all_moved() -> bool:
            now = self.ask()
            assert now["errors"] == [], now["errors"]
            for number, count in enumerate(now["each_received"]):
                if count > before[number] + 8:
                    waiting.discard(str(number))
            return not waiting

        eventually(all_moved, "numbers on all connections")
        unsent = set(self._send_queues())

        def all_taken() -> bool:
            unsent.difference_update(name for name, size in self._send_queues().items() if size == 0)
            return not unsent

        eventually(all_taken, "the peer's numbers are acknowledged on all connections")
        return time.monotonic() - began

    def _send_queues(self) -> dict[str, int]:
        lines = self.peer.exec(["ss", "-Htn", "state", "established", f"dport = :{PORT}"]).stdout.splitlines()
        return {line.split()[2]: int(line.split()[1]) for line in lines}

    @contextlib.contextmanager
    def other(self, pid: int) -> Iterator[None]:
        """Migrations are of *pid*, which is on origin, instead of the server; it is killed afterwards."""
        server, self.pid = self.pid, pid
        try:
            yield
        finally:
            self.pid = server
            script = f"pkill -9 -P {pid}; kill -9 {pid}"
            self.origin.exec(["sh", "-c", script], check=False)

    def spawn_as(self, host: Host, pid: int, command: list[str]) -> int:
        """Start *command* on *host* as *pid*."""

        def tried() -> bool:
            host.exec(["sh", "-c", f"echo {pid - 2} > /proc/sys/kernel/ns_last_pid"])
            found = host.spawn(command)
            if found != pid:
                host.exec(["kill", "-9", str(found)])
            return found == pid

        eventually(tried, f"{command} is {pid} on {host.name}")
        return pid

    # --- what is left --------------------------------------------------------------------------------------

    def wrong(self, where: str, *, doubt: str = "") -> list[str]:
        """What is not as it should be when the server runs on *where* and nothing else is left.

        :param doubt: id of a migration whose copy is frozen on origin, with its filter and journal.
        """
        found = []
        for host in (self.origin, self.destination):
            now, before = View(host), self.before[host.name]
            mine = {pid: state for pid, (state, words) in now.processes.items() if f"serve {PORT}" in words}
            frozen = doubt and host is self.origin
            if host.name == where:
                found += [] if list(mine) == [self.pid] else [f"{host.name}: {mine} runs, not {self.pid}"]
                found += [f"{host.name}: {pid} is {s}" for pid, s in mine.items() if s[0] not in "RS"]
            elif frozen:
                found += [
                    f"{host.name}: {pid} is {s}"
                    for pid, s in mine.items()
                    if s[0] not in "Tt" and not self.cgroup_frozen(pid)
                ]
                found += [] if list(mine) == [self.pid] else [f"{host.name}: no frozen copy: {mine}"]
            else:
                found += [f"{host.name}: a copy: {mine}"] if mine else []
            others = {pid: one for pid, one in now.processes.items() if pid not in mine}
            others = {
                pid: one
                for pid, one in others.items()
                if pid not in before.processes and not now.reminds(one)
            }
            found += [f"{host.name}: process {pid} {one}" for pid, one in others.items()]
            kept = {f"/run/migrate/{doubt}"} if frozen else set()
            found += [f"{host.name}: file {one}" for one in now.files - before.files - kept]
            found += self._wrong_network(host, now, before, where, doubt if frozen else "")
        return found

    def cgroup_frozen(self, pid: int) -> bool:
        """Whether *pid*, on origin, is in a frozen cgroup."""
        words = f'cat "/sys/fs/cgroup/$(sed -n s,^0::/,,p /proc/{pid}/cgroup)/cgroup.events"'
        return "frozen 1" in self.origin.exec(["sh", "-c", words], check=False).stdout

    def _wrong_network(self, host: Host, now: View, before: View, where: str, doubt: str) -> list[str]:
        filters = {f"table inet tcpcp-{doubt}"} if doubt else set()
        expected = before.addresses - self.service | (self.service if host.name == where else set())
        rules, had = (
            {line for line in view.network if not any(ip in line for ip in self.lab.service)}
            for view in (now, before)
        )
        odd = (rules ^ had) - filters - {"table inet cut"}
        return [f"{host.name}: network {one}" for one in sorted(odd)] + [
            f"{host.name}: address {one}" for one in sorted(now.addresses ^ expected)
        ]

    def traces(self, host: Host) -> list[str]:
        """What of a migration is on *host*, but for the server itself."""
        now, before = View(host), self.before[host.name]
        ours = ("migrate", "criu", "pid_namespace")
        found = [str(one) for one in now.processes.values() if any(word in one[1] for word in ours)]
        found = [one for one in found if "migrate.recovery.guardian" not in one or now.files]
        addresses = sorted(now.addresses - before.addresses)
        return found + sorted(now.files) + addresses + [one for one in now.network if "migrate-" in one]

    def _guardians(self) -> list[str]:
        """Guardians that still announce addresses."""
        hosts = (self.origin, self.destination)
        words = [one for host in hosts for _, one in View(host).processes.values()]
        return [one for one in words if "migrate.recovery.guardian" in one]

    def assert_alone(self, where: str, *, within_s: float = 5.0, doubt: str = "") -> float:
        """Within *within_s* the server runs on *where* alone and nothing else is left; seconds it took."""
        began = time.monotonic()
        while wrong := self.wrong(where, doubt=doubt):
            assert time.monotonic() - began < within_s, "\n".join(wrong)
            time.sleep(0.02)
        self.at = where
        return time.monotonic() - began
