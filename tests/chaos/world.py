"""A lab with the server of chaos and its peer: what faults act on, and what judges look at."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "lab"), str(HERE.parent.parent)]

import hosts  # noqa: E402
import kills  # noqa: E402
from harness.hosts import listeners  # noqa: E402
from harness.wait import eventually  # noqa: E402
from harness.workloads import drive_numbered  # noqa: E402
from kills import PORT  # noqa: E402

from migrate.lab import Host, Lab  # noqa: E402

SERVER = str(HERE / "server.py")
SIDES = ("origin", "destination")
CALLS = ("500", "2")
#: What a link that is slow lets through, and what is lost beyond that.
SLOW = "limit rate over 100 kbytes/second burst 20 kbytes"


class NoVictim(Exception):
    """Whoever was to be hit is not there (yet, or any more)."""


class Bench(kills.Bench):
    """As for kills, with the server of chaos; *streams* connections of each IP version."""

    streams = kills.CONNECTIONS

    def start(self) -> None:
        """Start the server on origin, and its peer."""
        self.choose_pids()
        for host in (self.origin, self.destination):
            host.exec(["sh", "-c", "rm -rf /tmp/beats; mkdir -p /tmp/beats"])
            # What the kernel has yet to end of the run before: a client may get the same port again.
            host.exec(["ss", "-K", "-t", "-a", f"sport = :{PORT} or sport = :{PORT + 1}"])
        self.pid = self.origin.spawn([sys.executable, SERVER, "serve", str(PORT)])
        eventually(lambda: listeners(self.origin, PORT, PORT + 1) == 3, "the server listens")
        self.drive = drive_numbered(self.lab, PORT, self.streams)

    def stop(self) -> None:
        """End both, wherever the server is, and put the service addresses back on origin."""
        for host in (self.origin, self.destination):
            host.exec(["pkill", "-9", "-f", f"server.py serve {PORT}|[p]id_namespace"], check=False)
        super().stop()


class World:
    """One lab, and what is done to it during one run.

    :ivar notes: what happened, with seconds since the run began; for the log of a finding.
    :ivar problems: of callers, sentences.
    """

    def __init__(self, name: str) -> None:
        self.lab = Lab(name)
        self.lab.up()
        self.bench = Bench(self.lab)
        self._lock = threading.Lock()
        self._broken: list[str] = []
        self.begin()

    def begin(self) -> None:
        """A run begins."""
        self.began = time.monotonic()
        self.notes: list[str] = []
        self.problems: list[str] = []
        self._callers: list[subprocess.Popen[str]] = []

    def close(self) -> None:
        """Leave nothing, by force."""
        drive = getattr(self.bench, "drive", None)
        if drive is not None:
            drive.close()
        with contextlib.suppress(Exception):  # cgroups outlive a lab
            self.bench._sweep()
        self.lab.down()

    def note(self, text: str) -> None:
        """Something for the log."""
        self.notes.append(f"{time.monotonic() - self.began:9.3f}  {text}")

    # --- what faults use ------------------------------------------------------------------------------------

    def host(self, side: str) -> Host:
        """By name."""
        return self.lab.hosts[side]

    def victims(self, who_and_side: str) -> list[hosts.Process]:
        """Who is to be hit: "WHO SIDE"; of several CRIUs the oldest. :raises NoVictim: nobody."""
        who, side = who_and_side.split()
        found = hosts.find(self.host(side), who)
        if not found:
            raise NoVictim(who_and_side)
        return found if who == "sshd" else found[:1]

    def run(self, side: str, script: str) -> None:
        """A shell script on one host; its failure is noted, no more."""
        done = self.host(side).exec(["sh", "-c", script], check=False)
        if done.returncode:
            self.note(f"{side}: {script}: {done.stderr.strip() or done.returncode}")

    def later(self, seconds: float, act: Callable[[], None]) -> Callable[[], None]:
        """Do *act* in so many seconds, or, by what is returned, now; once."""
        lock = threading.Lock()
        done: list[bool] = []

        def once() -> None:
            with lock:
                if not done:
                    done.append(True)
                    act()

        timer = threading.Timer(seconds, once)
        timer.daemon = True
        timer.start()
        return once

    @staticmethod
    def sleep(seconds: float) -> None:
        """For faults that come twice."""
        time.sleep(seconds)

    @staticmethod
    def virtual_bytes(process: hosts.Process) -> int:
        """How much address space *process* has."""
        pages = Path(f"/proc/{process.machine_pid}/statm").read_text().split()[0]
        return int(pages) * 4096

    def break_link(self, what: str) -> Callable[[], None]:
        """Packets between driver and agent: cut, reset, slow; one direction, or both; what is returned mends it."""
        verdict = {"reset": "reject with tcp reset", "slow": f"{SLOW} drop"}.get(what, "drop")
        rules = {"input": f"tcp sport 22 {verdict}", "output": f"tcp dport 22 {verdict}"}
        wanted = {"cut to origin": ("input",), "cut to destination": ("output",)}.get(what, tuple(rules))
        mine = [f"type filter hook {hook} priority -500; {rules[hook]};" for hook in wanted]
        with self._lock:
            self._broken += mine
            self._apply()
        return lambda: self._mend(mine)

    def _mend(self, mine: list[str]) -> None:
        with self._lock:
            for chain in mine:
                self._broken.remove(chain)
            self._apply()

    def _apply(self) -> None:
        """The link is as broken as it is to be: what was there goes in the same transaction."""
        chains = [f"chain c{number} {{ {text} }}" for number, text in enumerate(self._broken)]
        made = ["table inet cut {", *chains, "}"] if chains else []
        self._nft("\n".join(["table inet cut", "delete table inet cut", *made]))

    def _nft(self, text: str) -> None:
        words = ["nsenter", f"--net={self.host('origin').netns}", "nft", text]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"nft {text}: {done.stderr.strip()}")

    def go_on_everywhere(self) -> None:
        """A server that was stopped goes on."""
        for side in SIDES:
            for one in hosts.find(self.host(side), "server"):
                hosts.send(one, signal.SIGCONT)

    def tell_server(self, word: str) -> None:
        """Have it do *word*, wherever it is."""
        for side in SIDES:
            if hosts.find(self.host(side), "server"):
                with contextlib.suppress(OSError):
                    (self.host(side).root / "tmp/beats/do").symlink_to(word)

    def callers(self) -> None:
        """Connections at a high rate, until :meth:`wait_for_callers`."""
        words = [sys.executable, SERVER, "call", self.lab.service.ipv4, str(PORT + 1), *CALLS]
        self._callers.append(self.lab.hosts["peer"].popen(words, stdout=PIPE, text=True))

    def wait_for_callers(self) -> None:
        """Wait for their end, when all is healed that may keep them from it, and keep what went wrong."""
        for one in self._callers:
            said = json.loads(one.communicate(timeout=120)[0])
            self.note(f"callers: {said['calls']} calls, {len(said['problems'])} problems")
            self.problems += said["problems"]

    # --- what judges use ------------------------------------------------------------------------------------

    def copies(self) -> dict[str, list[hosts.Process]]:
        """Roots of the server on each host, without its children."""
        found = {}
        for side in SIDES:
            mine = hosts.find(self.host(side), "server")
            pids = {one.pid for one in mine}
            found[side] = [one for one in mine if one.parent not in {other.machine_pid for other in mine}]
            assert len(pids) >= len(found[side])
        return found

    def wrong(self, where: str, migration_ids: set[str]) -> list[str]:
        """What is not as it should be with the server alone on *where*, or, "" , nowhere."""
        if not where:
            both = [
                [one for one in self._wrong(side, migration_ids) if " runs, not " not in one]
                for side in SIDES
            ]
            return min(both, key=len)
        copies = self.copies()[where]
        if copies:
            self.bench.pid = copies[0].pid  # another one if it got a PID namespace
        return self._wrong(where, migration_ids)

    def _wrong(self, where: str, migration_ids: set[str]) -> list[str]:
        found = [one for one in self.bench.wrong(where) if "pid_namespace" not in one]
        for side in SIDES:
            groups = self.host(side).root / "sys/fs/cgroup"
            found += [
                f"{side}: cgroup {one}" for one in migration_ids if (groups / f"migrate-{one}").exists()
            ]
        return found


__all__ = ["SIDES", "Bench", "NoVictim", "World"]
