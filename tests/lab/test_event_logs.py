"""Every migration leaves a log on each host, under the same id, that tells how it ended as its report does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from harness.wait import eventually
from kills import Bench, Migration
from kills_outcomes import assert_goes_on_at_origin, assert_moved

from migrate.lab import Host
from migrate.steps import STEPS

HOSTS = ("origin", "destination")
LOGS = "/var/log/migrate"


@pytest.fixture
def bench(loaded: Bench) -> Iterator[Bench]:
    yield loaded.ready()
    for host in (loaded.origin, loaded.destination):
        host.exec(["sh", "-c", f"umount {LOGS} 2>/dev/null; rm -rf {LOGS}"])


def log(bench: Bench, role: str, migration_id: str) -> list[dict[str, Any]]:
    """All events, each checked for what every line has."""
    text = bench.lab.hosts[role].exec(["cat", f"{LOGS}/{migration_id}/{role}.jsonl"]).stdout
    lines = [json.loads(line) for line in text.splitlines()]
    assert {(line["id"], line["role"]) for line in lines} == {(migration_id, role)}
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    assert {line["event"]: line for line in lines}["began"]["monotonic_ns"] > 0
    return lines


def whole_log(bench: Bench, role: str, migration_id: str) -> list[dict[str, Any]]:
    """With its end: the destination writes it a moment after the driver has said how it ended."""
    eventually(lambda: outcomes(log(bench, role, migration_id)), f"{role} has written the end")
    return log(bench, role, migration_id)


def states(lines: list[dict[str, Any]]) -> list[str]:
    return [line["state"] for line in lines if line["event"] == "state"]


def outcomes(lines: list[dict[str, Any]]) -> list[str]:
    return [line["what"]["outcome"] for line in lines if line["event"] == "ended"]


def modes(host: Host) -> set[str]:
    """Type, mode and owner of all that is there."""
    return set(host.exec(["find", LOGS, "-printf", "%y %m %u\n"]).stdout.splitlines())


def listen(host: Host) -> str:
    """A syslogd on *host*, which writes what it is told to the file that is returned."""
    script = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind('/dev/log')\n"
        "while True: print(s.recv(4096).decode(), flush=True)\n"
    )
    host.exec(["rm", "-f", "/dev/log"])
    host.spawn(["/usr/bin/env", "python3", "-c", script], log="/run/syslog")
    eventually(lambda: host.exec(["test", "-S", "/dev/log"], check=False).returncode == 0, "it listens")
    return "/run/syslog"


def test_a_move(bench: Bench) -> None:
    said = {name: listen(bench.lab.hosts[name]) for name in HOSTS}
    status, report = bench.migrate(str(bench.pid), "destination")
    assert (status, report["outcome"]) == (0, "MOVED"), report
    assert_moved_and_stopped(bench, said)
    migration_id = report["id"]
    assert report["logs"] == dict.fromkeys(HOSTS, f"{LOGS}/{migration_id}")
    here, there = (whole_log(bench, role, migration_id) for role in HOSTS)
    assert outcomes(here) == outcomes(there) == ["MOVED"]
    assert states(here)[:2] == ["FROZEN", "DUMPED"] and states(here)[-1] == "RELEASED"
    assert states(there)[-2:] == ["ACTIVATED", "LEFT"]
    ended = here[-1]["what"]
    assert {name: ended[name] for name in ("frozen_ms", "connections", "image_bytes", "where")} == {
        name: report[name] for name in ("frozen_ms", "connections", "image_bytes", "where")
    }
    entries = [line["what"]["did"] for line in here if line["event"] == "journal" and "did" in line["what"]]
    assert entries[:2] == ["images", "isolation"] and "repair" in entries
    assert_as_the_table_says(here, there)
    assert {line["by"] for line in (*here, *there)} == {"migrate", "migrate-agent"}
    for host in (bench.origin, bench.destination):
        assert modes(host) == {"d 700 root", "f 600 root"}
        assert host.exec(["ls", f"{LOGS}/{migration_id}"]).stdout.count("\n") == 1


def assert_as_the_table_says(here: list[dict[str, Any]], there: list[dict[str, Any]]) -> None:
    """Nothing was said, waited for or journalled in a step that does not provide for it, or in another order."""
    assert [line for line in (*here, *there) if line["event"] == "unexpected"] == []
    for step in STEPS:
        mine = [line["what"] for line in here if line["event"] == "journal" and line["phase"] == step.action]
        kinds = list(dict.fromkeys(what["did"] for what in mine if "did" in what))
        assert kinds == [kind.word for kind in step.here if kind.word in kinds], step.action


def assert_moved_and_stopped(bench: Bench, said: dict[str, str]) -> None:
    """One line each in the system's log; then its writer ends, so that nothing of this test is left."""
    for name, path in said.items():
        host = bench.lab.hosts[name]
        # Its writer is another process, and the destination's end comes after the driver's.
        (line,) = eventually(
            lambda host=host, path=path: host.exec(["cat", path]).stdout, "told"
        ).splitlines()  # type: ignore[misc]
        how = f": MOVED, runs on destination as PID {bench.pid}" if name == "origin" else ": MOVED"
        assert line.startswith("<30>") and line.endswith(how), line
        there = " there" if name == "destination" else ""
        asked = rf" {bench.pid} \(\w+\) from origin to destination, asked for{there} by root\b"
        assert re.search(asked, line), line
        host.exec(["sh", "-c", f"pkill -f [S]OCK_DGRAM; rm -f /dev/log {path}"], check=False)
    assert_moved(bench)


def test_a_check_leaves_none(bench: Bench) -> None:
    status, report = bench.migrate("--check", str(bench.pid), "destination")
    assert (status, report["logs"]) == (0, {}), report
    for host in (bench.origin, bench.destination):
        assert host.exec(["ls", LOGS], check=False).stdout == ""
    bench.assert_alone("origin")


def test_a_refusal(bench: Bench) -> None:
    busy = occupy_port(bench.destination)
    status, report = bench.migrate(str(bench.pid), "destination")
    bench.destination.exec(["kill", "-9", busy])
    assert (status, report["outcome"]) == (3, "UNTOUCHED"), report
    here, there = (whole_log(bench, role, report["id"]) for role in HOSTS)
    assert outcomes(here) == outcomes(there) == ["UNTOUCHED"]
    reasons = [reason["text"] for reason in report["reasons"]]
    (error,) = [line["what"] for line in here if line["event"] == "error"]
    assert all(any(text in one for one in error["reasons"]) for text in reasons)
    (called_off,) = [line["what"] for line in there if line["event"] == "called off"]
    assert called_off == {"outcome": "UNTOUCHED", "reason": "; ".join(reasons)}
    bench.assert_alone("origin")


def occupy_port(host: Host, interface: str = "") -> str:
    """Somebody else listens there, on all interfaces or on one; its PID."""
    script = (
        "import socket, time; s = socket.socket()\n"
        f"s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'{interface}')\n"
        "s.bind(('', 7400)); s.listen(); time.sleep(100)"
    )
    pid = host.spawn(["/usr/bin/env", "python3", "-c", script])
    eventually(lambda: host.exec(["ss", "-Hltn", "sport = :7400"]).stdout, "it listens")
    return str(pid)


def test_a_rollback(bench: Bench) -> None:
    """A CRIU that fails on the destination: what it wrote is beside the log."""
    migration = Migration(bench, "STREAMED")
    busy = occupy_port(bench.destination, "lo")  # which is not looked at just before CRIU builds
    migration.go()
    status, report = migration.end()
    bench.destination.exec(["kill", "-9", busy])
    assert (status, report["outcome"]) == (4, "ROLLED_BACK"), report
    assert_goes_on_at_origin(bench)
    here, there = (whole_log(bench, role, migration.id) for role in HOSTS)
    assert report["id"] == migration.id
    assert outcomes(here) == outcomes(there) == ["ROLLED_BACK"]
    (failed,) = [line["what"] for line in here if line["event"] == "error"]
    assert failed["message"] == report["error"]["message"] and failed["host"] == "destination"
    assert [line["what"]["message"] for line in there if line["event"] == "error"] == [failed["message"]]
    kept = f"{LOGS}/{migration.id}/destination-criu-restore.log"
    assert report["error"]["details"][0] in bench.destination.exec(["cat", kept]).stdout.splitlines()


def test_a_killed_driver(bench: Bench) -> None:
    """The guardians go on with the logs."""
    migration = Migration(bench, "ISOLATED")
    reached = ["FROZEN", "DUMPED", "ISOLATED"]
    # It is written a little later, so that it costs nothing in the gap; who is killed writes no more.
    eventually(lambda: states(log(bench, "origin", migration.id)) == reached, "it is written")
    migration.kill("driver")
    migration.killed()
    assert_goes_on_at_origin(bench)
    here, there = (log(bench, role, migration.id) for role in HOSTS)
    assert outcomes(here) == outcomes(there) == ["ROLLED_BACK"]
    assert [line["by"] for line in here if line["event"] == "ended"] == ["migrate-guardian"]
    assert states(here)[:3] == reached
    assert "link lost" in [line["event"] for line in there]


def test_doubt_is_decided_in_the_same_log(bench: Bench) -> None:
    migration = Migration(bench, "COMMITTED")
    migration.kill("driver")
    migration.killed()
    bench.assert_alone("destination", doubt=migration.id)
    status, report = bench.migrate("--recover")
    assert (status, report["outcome"]) == (0, "UNTOUCHED"), report
    assert_moved(bench)
    here, there = (log(bench, role, migration.id) for role in HOSTS)
    assert outcomes(here)[0] == "IN_DOUBT" and outcomes(here)[-1] == outcomes(there)[-1] == "MOVED"
    assert "asked" in [line["event"] for line in here if line["by"] == "migrate"]


@pytest.mark.parametrize("trouble", ["full", "read-only", "a link", "another's"])
def test_no_log_is_no_failure(bench: Bench, trouble: str) -> None:
    """It is moved, and a note says that the log is lost and why."""
    script, why = {
        "full": (
            f"mkdir -m 700 -p {LOGS} && mount -t tmpfs -o size=4k,mode=700 tmpfs {LOGS}"
            f" && head -c 4096 /dev/zero > {LOGS}/filler",
            "No space left on device",
        ),
        "read-only": (
            f"mkdir -m 700 -p {LOGS} && mount -t tmpfs -o ro,mode=700 tmpfs {LOGS}",
            "Read-only file system",
        ),
        "a link": (f"rm -rf {LOGS} && ln -s /srv {LOGS}", "Not a directory"),
        "another's": (f"mkdir -p {LOGS} && chown nobody {LOGS}", "it is not root's"),
    }[trouble]
    for host in (bench.origin, bench.destination):
        host.exec(["sh", "-c", script])
    status, report = bench.migrate(str(bench.pid), "destination")
    assert (status, report["outcome"]) == (0, "MOVED"), report
    lost = [note for note in report["notes"] if "the log of this migration" in note]
    assert len(lost) == 2 and all(why in note for note in lost), report["notes"]
    assert bench.origin.exec(["ls", "/srv"]).stdout == ""
    assert_moved(bench)


def test_events_as_they_come(bench: Bench) -> None:
    """-v shows what an administrator wants to know, -vv all of it; standard output stays JSON."""
    seen = {}
    for words in ("-v", "-vv"):
        done = bench.origin.exec(["migrate", "--json", words, "--check", str(bench.pid), "destination"])
        assert all(json.loads(line) for line in done.stdout.splitlines())
        seen[words] = [line for line in done.stderr.splitlines() if line.startswith("migrate: ")]
    assert any(" connect: connected host=destination" in line for line in seen["-v"])
    assert len(seen["-vv"]) > len(seen["-v"])
    bench.assert_alone("origin")
