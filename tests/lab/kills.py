"""A server under load, migrations of it that stop to be killed, and what a kill may leave: nothing.

The judges are ``ps``, ``ip``, ``nft``, ``ls`` and ``ss`` on the hosts, and the peer's end of the connections.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from harness.hosts import listeners, use_pid
from harness.left import View
from harness.migrate import Held, run_migrate
from harness.reset import give_back
from harness.wait import DEADLINE_S, eventually
from harness.workloads import NUMBERED, WORKLOADS, Silent, drive_numbered

from migrate.lab import Host, Lab

PORT = 7400
#: Connections of each IP version.
CONNECTIONS = 3
#: A PID that is free on both hosts.
FIRST_PID = 20000


class Migration:
    """``migrate --stop-at STATE`` of the bench's server, waiting in that state when the constructor returns.

    :ivar driver: its PID on the origin.
    :ivar id: the migration's name, "" before there is a journal.
    """

    def __init__(self, bench: Bench, state: str, *options: str, program: str = "migrate") -> None:
        self.bench = bench
        # What a test does meanwhile counts as gap; where options repeat, the last one holds.
        options = ("--max-gap", str(DEADLINE_S), *options)
        self._held = Held(bench.origin, state, *options, bench.pid, "destination", program=program)
        self.process, self.driver, self.id = self._held.process, self._held.driver, self._held.id

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
        self._held.go()

    def end(self) -> tuple[int, dict[str, Any]]:
        """Wait for the driver's own end: its exit status and report."""
        ran = self._held.end()
        return ran.status, ran.report

    def killed(self) -> None:
        """The driver was killed; reap it."""
        self._held.killed()


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
        command = [*NUMBERED, sys.executable, str(WORKLOADS / "numbered.py"), "serve", str(PORT)]
        self.pid = self.origin.spawn(command)
        eventually(lambda: listeners(self.origin, PORT) == 2, "the server listens")
        self.drive = drive_numbered(self.lab, PORT, CONNECTIONS)

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
        with contextlib.suppress(Silent):
            self.drive.stop()
        self.drive.close()
        for host in (self.origin, self.destination):
            host.exec(["pkill", "-9", "-f", f"numbered.py serve {PORT}"], check=False)
        self.pid = 0
        self.put_back()

    def put_back(self) -> None:
        """The service addresses are where they were at first."""
        give_back(self.lab)

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
        ran = run_migrate(self.lab.hosts[host], *words, program=program)
        return ran.status, ran.report

    def ask(self) -> dict[str, Any]:
        """What the peer has seen so far."""
        return self.drive.ask()

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
            use_pid(host, pid)
            found = host.spawn(command)
            if found != pid:
                host.exec(["kill", "-9", str(found)])
            return found == pid

        eventually(tried, f"{command} is {pid} on {host.name}")
        return pid

    # --- what is left --------------------------------------------------------------------------------------

    def number_on(self, host: Host) -> int:
        """What the server's PID is, or would be, there."""
        return self.pid

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
                wanted = self.number_on(host)
                found += [] if list(mine) == [wanted] else [f"{host.name}: {mine} runs, not {wanted}"]
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
        wrong: list[str] = []

        def is_alone() -> bool:
            wrong[:] = self.wrong(where, doubt=doubt)
            return not wrong

        eventually(is_alone, lambda: "\n".join(wrong), within_s, pause_s=0.02)
        self.at = where
        return time.monotonic() - began
