"""Units of systemd move as units, there and back, and whoever is killed on the way leaves one, in one place.

The judge is systemctl on both machines, and the peer of the connections.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from subprocess import CompletedProcess
from typing import Any, NamedTuple

import pytest
from conftest import PATIENT
from harness.hosts import MOVERS
from harness.migrate import COMMAND_S, Held, Ran, run_migrate
from harness.reset import give_back
from harness.wait import eventually
from harness.workloads import NUMBERED as BEFORE
from harness.workloads import NUMBERED_S, WORKLOADS, Client, assert_streams

from migrate.lab import Host, Lab
from migrate.lab.vm.lab import VmLab

PROGRAM = f"/usr/bin/python3 {WORKLOADS / 'of_a_unit.py'}"
OWN, WATCHED, WEB = "own.service", "watched.service", "nginx.service"
PORTS = {OWN: 7001, WATCHED: 7002, WEB: 80}
#: Under a user of its own, and in the journal; systemd starts it again whenever it ends.
FILES = {
    OWN: f"""
[Service]
User=www-data
ExecStart={PROGRAM} {PORTS[OWN]}
Environment=NUMBERED_INTERVAL_S={NUMBERED_S:g}
Restart=always
StandardOutput=journal
LimitNOFILE=5000
MemoryMax=300M
""",
    WATCHED: f"""
[Service]
Type=notify
User=www-data
ExecStart={PROGRAM} {PORTS[WATCHED]}
Environment=NUMBERED_INTERVAL_S={NUMBERED_S:g}
Restart=always
WatchdogSec=60
""",
}
STATES = (
    "CHECKED",
    "FROZEN",
    "DUMPED",
    "ISOLATED",
    "STREAMED",
    "RESTORED",
    "SWITCHED",
    "COMMITTED",
    "ACTIVATED",
)
GIVEN_AWAY = ("COMMITTED", "ACTIVATED")
#: The one death that `make test-vm` has: both hosts have to undo.
FEW = (("RESTORED", "driver"),)


class Shown(NamedTuple):
    """What systemd says of a unit."""

    state: str
    sub: str
    main: int
    result: str
    restart: str
    freezer: str


def run(host: Host, command: list[str], **more: Any) -> CompletedProcess[str]:
    """As the host does it, with the patience of emulated machines: systemd that reads its files may take long."""
    return host.exec(command, timeout=COMMAND_S, **more)


def shown(host: Host, unit: str) -> Shown:
    names = ("ActiveState", "SubState", "MainPID", "Result", "Restart", "FreezerState")
    words = [f"--property={name}" for name in names]
    lines = run(host, ["systemctl", "show", *words, unit]).stdout.splitlines()
    found = dict(line.split("=", 1) for line in lines)
    main = int(found.pop("MainPID"))
    return Shown(found["ActiveState"], found["SubState"], main, *(found[one] for one in names[3:]))


def journal(host: Host, unit: str, *words: str) -> str:
    return run(host, ["journalctl", "-q", "-u", unit, "-o", "cat", "--no-pager", *words]).stdout


class Bench:
    """The units on both machines, none of which runs."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.movers = self.origin, self.destination = [lab.hosts[name] for name in MOVERS]
        self._number = 2000
        for host in self.movers:
            for unit, text in FILES.items():
                run(host, ["sh", "-c", f"cat > /run/systemd/system/{unit}"], input=text)
            run(host, ["systemctl", "daemon-reload"])

    def start(self, unit: str) -> int:
        """It runs on the origin, with a number that is free on the destination."""
        for host in self.movers:
            run(host, ["systemctl", "stop", unit])
            run(host, ["systemctl", "reset-failed", unit], check=False)
        give_back(self.lab)
        self._number += 300
        run(self.origin, ["sh", "-c", f"echo {self._number} > /proc/sys/kernel/ns_last_pid"])
        run(self.origin, ["systemctl", "start", unit])
        listens = ["ss", "-Hltn", f"sport = :{PORTS[unit]}"]
        eventually(lambda: run(self.origin, listens).stdout, f"{unit} listens")
        return shown(self.origin, unit).main

    def words(self, unit: str, to: str) -> list[str]:
        return [*PATIENT, "--address", self.lab.service.ipv4, "--unit", unit, to]

    def move(self, unit: str, start: str = "origin") -> Ran:
        end = MOVERS[1 - MOVERS.index(start)]
        moved = run_migrate(self.lab.hosts[start], *self.words(unit, end))
        assert moved.status == 0, moved.report
        return moved

    def runs_alone(self, unit: str, where: str, main: int) -> None:
        """*unit* is active on *where* and inactive elsewhere; nothing of a move is left on either."""
        there = self.lab.hosts[MOVERS[1 - MOVERS.index(where)]]

        def is_so() -> bool:
            here, elsewhere = shown(self.lab.hosts[where], unit), shown(there, unit)
            return (
                here[:3] == ("active", "running", main)
                and (here.result, here.freezer) == ("success", "running")
                and elsewhere[:4] == ("inactive", "dead", 0, "success")
                and not any(self.left(host, unit) for host in self.movers)
            )

        eventually(is_so, lambda: f"{[(shown(one, unit), self.left(one, unit)) for one in self.movers]}")
        group = run(self.lab.hosts[where], ["cat", f"/proc/{main}/cgroup"]).stdout
        assert f"0::/system.slice/{unit}\n" in group
        if unit in FILES:
            assert shown(self.lab.hosts[where], unit).restart == "always"
        self.writes(self.lab.hosts[where], unit, main)

    def left(self, host: Host, unit: str) -> str:
        """Journals and drop-ins of migrations, and processes of them."""
        look = f"ls -d /run/migrate/*/journal /run/systemd/system/{unit}.d /dev/shm/migrate-* 2>/dev/null;"
        look += " pgrep -a '^criu$'; pgrep -fa '[m]igrate.recovery.guardian'; pgrep -fax 'sleep infinity'"
        return run(host, ["sh", "-c", look], check=False).stdout

    def writes(self, host: Host, unit: str, main: int) -> None:
        """What it writes comes to the journal of the host, as of the unit: of its standard output and beside it."""
        if unit not in FILES:
            return

        def written() -> list[int]:
            lines = journal(host, unit, f"_PID={main}")
            return [lines.count(word) for word in ("tick", "beside")]

        before = written()
        eventually(lambda: all(map(operator.gt, written(), before)), "it writes to the journal")


@pytest.fixture(scope="module")
def bench(lab: VmLab) -> Iterator[Bench]:
    """Both machines have booted systemd."""
    for name in MOVERS:
        lab.reboot(name, systemd=True)
    made = Bench(lab)
    yield made
    for name in MOVERS:
        lab.reboot(name)


def client(bench: Bench, unit: str) -> Client:
    peer = bench.lab.hosts["peer"]
    return Client.start(peer, "numbered.py", "drive", PORTS[unit], bench.lab.service.ipv4, 2, before=BEFORE)


@pytest.mark.long
def test_there_and_back_under_load(bench: Bench) -> None:
    main = bench.start(OWN)
    streams = client(bench, OWN)
    for start, end in (MOVERS, MOVERS[::-1]):
        before = streams.ask()
        bench.move(OWN, start)
        bench.runs_alone(OWN, end, main)
        assert_streams(streams, before)
        host = bench.lab.hosts[start]
        assert f"was moved to {end} by migrate" in journal(host, OWN, "SYSLOG_IDENTIFIER=migrate")
    assert streams.stop()["errors"] == []
    run(bench.origin, ["kill", "-9", str(main)])  # Restart=always is in force again
    eventually(lambda: shown(bench.origin, OWN).main not in (0, main), "systemd starts it again")


@pytest.mark.long
def test_the_watchdog_goes_on(bench: Bench) -> None:
    """It is not killed meanwhile, and it is when it hangs there."""
    main = bench.start(WATCHED)
    bench.move(WATCHED)
    bench.runs_alone(WATCHED, "destination", main)
    said = ["systemctl", "show", "-P", "WatchdogTimestampMonotonic", WATCHED]
    before = run(bench.destination, said).stdout
    eventually(lambda: run(bench.destination, said).stdout != before, "it tells the watchdog")
    run(bench.destination, ["kill", "-STOP", str(main)])
    eventually(lambda: shown(bench.destination, WATCHED).main not in (0, main), "its watchdog fires", 300)


def test_nginx_as_debian_has_it(bench: Bench) -> None:
    """Type=forking with a PIDFile=; its workers are of another user."""
    main = bench.start(WEB)
    bench.move(WEB)
    bench.runs_alone(WEB, "destination", main)
    assert run(bench.destination, ["cat", "/run/nginx.pid"]).stdout.strip() == str(main)
    run(bench.destination, ["systemctl", "reload", WEB])
    get = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"http://{bench.lab.service.ipv4}/"]
    eventually(lambda: run(bench.lab.hosts["peer"], get, check=False).stdout == "200", "it serves")
    run(bench.destination, ["systemctl", "stop", WEB])
    assert shown(bench.destination, WEB)[:4] == ("inactive", "dead", 0, "success")


@pytest.mark.long
def test_what_stands_in_the_way_is_told(bench: Bench) -> None:
    """Before anything is touched; and what a plain move of it would mean."""
    main = bench.start(OWN)
    run(bench.destination, ["systemctl", "start", OWN])
    refused = run_migrate(bench.origin, *bench.words(OWN, "destination"))
    assert (refused.status, refused.codes) == (
        3,
        {("unit-runs", "destination"), ("port-taken", "destination")},
    )
    run(bench.destination, ["systemctl", "stop", OWN])
    plain = run_migrate(bench.origin, "--address", bench.lab.service.ipv4, "--check", main, "destination")
    plain.must_say("origin", "is the main process of own.service", f"migrate --unit {OWN} HOST")
    for unit, code in (("none-such", "no-such-unit"), (WATCHED, "unit-not-running")):
        run(bench.origin, ["systemctl", "stop", WATCHED])
        other = run_migrate(bench.origin, *bench.words(unit, "destination"))
        assert other.codes == {(code, "origin")}
    bench.runs_alone(OWN, "origin", main)


def deaths() -> list[object]:
    """State and victim as parameters, most of them left to `make test-vm-all`."""
    each = [(state, victim) for state in STATES for victim in ("driver", "agent")]
    return [pytest.param(*one, marks=() if one in FEW else pytest.mark.long) for one in each]


def kill(host: Host, *words: str) -> CompletedProcess[str]:
    return run(host, ["pkill", "-KILL", *words], check=False)


@pytest.mark.parametrize(("state", "victim"), deaths())
def test_who_is_killed_leaves_one_in_one_place(bench: Bench, state: str, victim: str) -> None:
    main = bench.start(OWN)
    held = Held(bench.origin, state, *bench.words(OWN, "destination"))
    try:
        if victim == "driver":
            held.signal("KILL")
            held.killed()
            if state == "COMMITTED":  # in doubt, until the destination is asked
                recover = ["migrate", "--recover", "--release", held.id]
                eventually(lambda: run(bench.origin, recover, check=False).returncode == 0, "it is released")
        else:
            kill(bench.destination, "-f", "[m]igrate-agent")
            held.go()
            ended = held.end()
            assert ended.report["outcome"] == ("MOVED" if state in GIVEN_AWAY else "ROLLED_BACK"), (
                ended.report
            )
    finally:
        held.stop()
    bench.runs_alone(OWN, "destination" if state in GIVEN_AWAY else "origin", main)
    run(bench.origin, ["migrate", "--recover"])


@pytest.mark.long
@pytest.mark.parametrize("who", ["driver and guardian", "agent and guardian"])
@pytest.mark.parametrize("state", ["RESTORED", "ACTIVATED"])
def test_recover_does_what_a_guardian_would_have(bench: Bench, state: str, who: str) -> None:
    main = bench.start(OWN)
    held = Held(bench.origin, state, *bench.words(OWN, "destination"))
    host = bench.origin if who.startswith("driver") else bench.destination
    try:
        kill(host, "-f", "[m]igrate.recovery.guardian")
        if who.startswith("driver"):
            held.signal("KILL")
            held.killed()
        else:
            kill(host, "-f", "[m]igrate-agent")
            held.go()
            held.end()
    finally:
        held.stop()
    run(host, ["migrate", "--recover"])
    bench.runs_alone(OWN, "destination" if state in GIVEN_AWAY else "origin", main)


@pytest.mark.long
def test_a_placeholder_that_is_ended_is_the_end_of_the_move(bench: Bench) -> None:
    main = bench.start(OWN)
    held = Held(bench.origin, "RESTORED", *bench.words(OWN, "destination"))
    try:
        kill(bench.destination, "-fx", ".*sleep infinity")
        held.go()
        ended = held.end()
    finally:
        held.stop()
    assert ended.report["outcome"] == "ROLLED_BACK", ended.report
    bench.runs_alone(OWN, "origin", main)


@pytest.mark.long
def test_one_that_is_stopped_meanwhile_stops_here(bench: Bench) -> None:
    """systemd before 257 thaws it for that (and refuses it from then on); it is no end that would be a failure."""
    bench.start(OWN)
    held = Held(bench.origin, "RESTORED", *bench.words(OWN, "destination"))
    try:
        run(bench.origin, ["systemctl", "stop", "--no-block", OWN])
        state = ["systemctl", "show", "-P", "ActiveState", OWN]
        eventually(lambda: run(bench.origin, state).stdout.strip() == "deactivating", "it is being stopped")
        held.go()
        ended = held.end()
    finally:
        held.stop()
    assert ended.report["outcome"] in ("ROLLED_BACK", "ENDED"), ended.report
    ended_well = [("inactive", "dead", 0, "success")] * 2
    eventually(lambda: [shown(host, OWN)[:4] for host in bench.movers] == ended_well, "it is stopped")
    eventually(lambda: not any(bench.left(host, OWN) for host in bench.movers), "nothing is left")
