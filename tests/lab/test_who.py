"""Which process is moved, and what became of it: seen, not assumed.

The one that was asked for and no other; dead when it was killed in the gap, with its signals when it was sent some;
and a report that says what is so on the host that it names.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from subprocess import PIPE

import pytest
from harness.checkered import checkered
from harness.left import View
from harness.wait import eventually
from kills import Bench, Migration
from kills_outcomes import assert_goes_on_at_origin, assert_moved

#: A process with a timer that expires all the time, and one that is no one's child for long.
TICKS = "import signal, time\nsignal.signal(signal.SIGALRM, lambda *_: None)\n"
TICKS += "signal.setitimer(signal.ITIMER_REAL, 2, 2)\nwhile True: time.sleep(1)"
#: A process that writes a file by each SIGALRM.
ONCE = "import signal, time\nsignal.signal(signal.SIGALRM, lambda *_: open('/tmp/expired', 'a').write('x'))\n"
ONCE += "while True: time.sleep(1)"
#: Kills whose command line has the word, when this host's journal says that the process was given to it.
KILLER = """
import glob, os, sys, time
end = time.monotonic() + 20
def given():
    return any("COMMITTED" in open(one).read() for one in glob.glob("/run/migrate/*/journal"))
while time.monotonic() < end and not given():
    time.sleep(0.001)
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        words = open(f"/proc/{pid}/cmdline").read().replace("\\0", " ")
    except OSError:
        continue
    if sys.argv[1] in words and int(pid) != os.getpid():
        os.kill(int(pid), 9)
"""
FORKS = """import os, time
while True:
    children = [os.fork() for _ in range(3)]
    if 0 in children:
        time.sleep(0.002)
        os._exit(0)
    for child in children: os.waitpid(child, 0)
"""


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    return loaded.ready()


@pytest.fixture
def idle(bench: Bench) -> Iterator[Bench]:
    """A bench of which the server stays where it is, while other processes are moved."""
    yield bench
    for host in (bench.origin, bench.destination):
        host.exec(["pkill", "-9", "-f", "^sleep [45]|python.* -c import"], check=False)
    bench.at = "origin"


def command_lines(bench: Bench, word: str) -> dict[str, list[str]]:
    """Where processes with *word* in their command line are."""
    hosts = (bench.origin, bench.destination)
    return {h.name: [one for _, one in View(h).processes.values() if word in one] for h in hosts}


def hit(bench: Bench, host: str, pid: int, name: str) -> None:
    bench.lab.hosts[host].exec(["kill", f"-{name}", str(pid)])


# --- which one -------------------------------------------------------------------------------------------


def test_another_process_that_got_its_number_stays(idle: Bench) -> None:
    pid = idle.origin.spawn(["sleep", "4040"])
    with idle.other(pid):
        migration = Migration(idle, "CHECKED")
        hit(idle, "origin", pid, "KILL")
        idle.spawn_as(idle.origin, pid, ["sleep", "5151"])
        migration.go()
        status, report = migration.end()
        assert (status, report["outcome"]) == (6, "ENDED")
        assert report["where"] == f"PID {pid} has ended on origin"
        assert command_lines(idle, "sleep 5151") == {"origin": ["sleep 5151"], "destination": []}
        assert idle.traces(idle.origin) == idle.traces(idle.destination) == []


def test_it_ends_before_it_is_frozen(idle: Bench) -> None:
    pid = idle.origin.spawn(["sleep", "4041"])
    with idle.other(pid):
        migration = Migration(idle, "CHECKED")
        hit(idle, "origin", pid, "KILL")
        migration.go()
        status, report = migration.end()
    assert (status, report["outcome"]) == (6, "ENDED")
    assert report["where"] == f"PID {pid} has ended on origin"
    assert report["error"]["message"] == f"process {pid} has ended"
    assert idle.traces(idle.origin) == []
    assert idle.migrate(str(pid), "destination")[0] == 3  # there is none


# --- what happened to it while it was frozen ---------------------------------------------------------------


@pytest.mark.parametrize("state", checkered(["FROZEN", "DUMPED", "ISOLATED", "SWITCHED"]))
def test_killed_by_its_owner_while_it_was_frozen(bench: Bench, state: str) -> None:
    migration = Migration(bench, state)
    hit(bench, "origin", bench.pid, "KILL")
    status, report = migration.end()  # noticed at once
    assert (status, report["outcome"]) == (6, "ENDED")
    assert report["where"] == f"PID {bench.pid} has ended on origin"
    assert "was killed while it was frozen" in report["error"]["message"]
    # An IPv6 address that comes back is not to be chosen for what the host begins itself.
    assert [one for one in report["notes"] if "it is deprecated" not in one] == []
    assert not any(command_lines(bench, "numbered.py serve").values())
    eventually(lambda: bench.traces(bench.destination) == [], "nothing is left on destination")
    assert bench.migrate("--recover")[1]["notes"] == ["nothing was left here by a migration"]


@pytest.mark.parametrize("state", ["DUMPED", "SWITCHED"])
def test_asked_to_end_by_its_owner_while_it_was_frozen(bench: Bench, state: str) -> None:
    """It gets the signal, which it would not on the destination."""
    migration = Migration(bench, state)
    hit(bench, "origin", bench.pid, "TERM")
    migration.go()
    status, report = migration.end()
    assert (status, report["outcome"]) == (6, "ENDED")
    assert f"process {bench.pid} was sent SIGTERM" in report["error"]["message"]
    assert not any(command_lines(bench, "numbered.py serve").values())


@pytest.mark.parametrize(("state", "name"), checkered(["COMMITTED", "ACTIVATED"], ["TERM", "KILL"]))
def test_asked_to_end_by_its_owner_when_it_was_given_away(bench: Bench, state: str, name: str) -> None:
    """What goes to the copy that is about to end is for nobody: whoever sent it is told."""
    migration = Migration(bench, state)
    hit(bench, "origin", bench.pid, name)
    migration.go()
    status, report = migration.end()
    assert (status, report["outcome"]) == (0, "MOVED")
    told = [one for one in report["notes"] if f"was sent SIG{name} here when it had been given away" in one]
    assert len(told) == 1 and f"process {bench.pid} " in told[0]
    assert_moved(bench)


@pytest.mark.parametrize("state", checkered(["FROZEN", "DUMPED", "SWITCHED"]))
def test_stopped_by_its_owner_while_it_was_frozen(bench: Bench, state: str) -> None:
    """It is stopped here, by a SIGSTOP that is not the driver's own, and goes on by SIGCONT as it would have."""
    migration = Migration(bench, state)
    hit(bench, "origin", bench.pid, "STOP")
    migration.go()
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK")
    assert f"process {bench.pid} was sent SIGSTOP" in report["error"]["message"]
    assert report["where"] == f"is stopped on origin as PID {bench.pid}"
    hit(bench, "origin", bench.pid, "CONT")
    assert_goes_on_at_origin(bench)


def test_told_to_go_on_before_it_is_dumped(bench: Bench) -> None:
    """As systemctl stop does after SIGTERM: CRIU cannot work in it then. It goes on, and is not stopped."""
    migration = Migration(bench, "FROZEN")
    hit(bench, "origin", bench.pid, "CONT")
    migration.go()
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK")
    assert f"process {bench.pid} was sent SIGCONT" in report["error"]["message"]
    assert_goes_on_at_origin(bench)


def test_signals_that_it_ignores_do_not_keep_it_here(bench: Bench) -> None:
    migration = Migration(bench, "SWITCHED")
    hit(bench, "origin", bench.pid, "WINCH")
    migration.go()
    assert migration.end()[0] == 0
    assert_moved(bench)


def test_its_timers_do_not_keep_it_here(idle: Bench) -> None:
    """They expire while it is frozen, and again on the destination."""
    pid = idle.origin.spawn([sys.executable, "-c", TICKS])
    with idle.other(pid):
        migration = Migration(idle, "SWITCHED")
        look = ["grep", "-q", "^ShdPnd:.*2...$", f"/proc/{pid}/status"]  # SIGALRM is bit 13
        eventually(lambda: idle.origin.exec(look, check=False).returncode == 0, "it has expired")
        migration.go()
        status, report = migration.end()
        assert (status, report["outcome"]) == (0, "MOVED"), report["error"]
        assert report["where"] == f"runs on destination as PID {pid}"
        idle.destination.exec(["kill", "-9", str(pid)])


def test_a_timer_that_expires_before_the_dump_does_not_keep_it_here(idle: Bench) -> None:
    """It is not set any more when CRIU writes it, and its signal waits, as this one does: it goes along."""
    pid = idle.origin.spawn([sys.executable, "-c", ONCE])
    with idle.other(pid):
        migration = Migration(idle, "FROZEN")
        look = ["grep", "-q", "^ShdPnd:.*2...$", f"/proc/{pid}/status"]
        idle.origin.exec(["kill", "-ALRM", str(pid)])
        eventually(lambda: idle.origin.exec(look, check=False).returncode == 0, "it has expired")
        migration.go()
        status, report = migration.end()
        assert (status, report["outcome"]) == (0, "MOVED"), report["error"]
        expired = ["sh", "-c", "cat /tmp/expired"]
        assert eventually(lambda: idle.destination.exec(expired, check=False).stdout, "it was told") == "x"
        idle.destination.exec(["kill", "-9", str(pid)])
        idle.destination.exec(["rm", "/tmp/expired"])


# --- what happened to what was built -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "name"), [("RESTORED", "KILL"), ("SWITCHED", "KILL"), ("SWITCHED", "STOP")]
)
def test_what_was_built_is_hit_before_commit(bench: Bench, state: str, name: str) -> None:
    migration = Migration(bench, state)
    hit(bench, "destination", bench.pid, name)
    began = time.monotonic()
    if name == "STOP":
        migration.go()
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK")
    assert "of the tree that was built" in report["error"]["message"]
    assert time.monotonic() - began < 10
    assert_goes_on_at_origin(bench)


def test_what_was_built_is_killed_when_commit_has_been_sent(bench: Bench) -> None:
    """The destination says that it does not run there: there is nothing to doubt."""
    migration = Migration(bench, "SWITCHED")
    agent = migration.agent
    hit(bench, "destination", agent, "STOP")
    hit(bench, "destination", bench.pid, "KILL")
    migration.go()
    migration.wait_for_journal(bench.origin, "COMMITTED")
    hit(bench, "destination", agent, "CONT")
    status, report = migration.end()
    assert (status, report["outcome"]) == (4, "ROLLED_BACK"), report
    assert report["instructions"] == []
    assert_goes_on_at_origin(bench)


@pytest.mark.parametrize(("victim", "again"), checkered(["criu", "server"], range(3)))
def test_what_was_built_is_killed_as_it_is_given(bench: Bench, victim: str, again: int) -> None:
    """In the milliseconds in which CRIU lets it run. No peer hears of it, and nobody waits for a dead one."""
    mark = "numbered.py serve" if victim == "server" else "criu swrk"
    killer = bench.destination.popen([sys.executable, "-c", KILLER, mark], stdout=PIPE, text=True)
    began = time.monotonic()
    status, report = bench.migrate(str(bench.pid), "destination")
    killer.communicate(timeout=30)
    assert time.monotonic() - began < 20
    if victim == "server" and report["outcome"] in ("MOVED", "ENDED"):  # it had run already
        assert not any(command_lines(bench, "numbered.py serve").values())
        return
    assert (status, report["outcome"]) in ((4, "ROLLED_BACK"), (0, "MOVED")), report
    if status == 0:
        bench.assert_streams()
        assert_moved(bench)
        return
    assert_goes_on_at_origin(bench)
    assert bench.destination.exec(["ss", "-tnH", "state", "fin-wait-1"]).stdout == ""


# --- a tree that changes all the time ----------------------------------------------------------------------


def test_a_tree_that_forks_all_the_time(idle: Bench) -> None:
    pid = idle.origin.spawn([sys.executable, "-c", FORKS])
    with idle.other(pid):
        for host, other in (("origin", "destination"), ("destination", "origin")):
            status, report = idle.migrate(str(pid), other, host=host)
            assert (status, report["outcome"]) == (0, "MOVED"), report
            pid = report["destination_pid"]
        assert report["where"] == f"runs on origin as PID {pid}"
        idle.origin.exec(["kill", "-9", str(pid)])
