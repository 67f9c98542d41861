"""The log of a migration: its lines, its directory, what is removed of old ones, and what is lost."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.wait import eventually

from migrate import limits, place
from migrate.errors import CriuError, Reason, Refused
from migrate.events import line, log, sweep, syslog, who, writer
from migrate.origin.chronicle import Chronicle
from migrate.request import Along, Request, Way

ID, OTHER = "0123456789ab", "ba9876543210"


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where logs are."""
    monkeypatch.setattr(place, "LOGS", tmp_path / "migrate")
    monkeypatch.setattr(place, "STATE", tmp_path / "run")
    monkeypatch.setattr(place, "SYSLOG", tmp_path / "syslog")
    return tmp_path / "migrate"


def lines(logs: Path, name: str = "origin.jsonl") -> list[dict[str, Any]]:
    return [json.loads(text) for text in (logs / ID / name).read_bytes().splitlines()]


# --- a line ----------------------------------------------------------------------------------------------


EVENT = line.Event(
    1_800_000_000_123_456_789, 42, ID, "origin", "migrate", 7, "dump", "FROZEN", "journal", {"did": "criu"}
)


def test_a_line() -> None:
    assert json.loads(line.to_json(EVENT)) == {
        "time": "2027-01-15T08:00:00.123456Z",
        "monotonic_ns": 42,
        "id": ID,
        "role": "origin",
        "by": "migrate",
        "pid": 7,
        "phase": "dump",
        "state": "FROZEN",
        "event": "journal",
        "what": {"did": "criu"},
    }
    assert line.to_json(EVENT).endswith(b"}\n")
    assert line.to_text(EVENT) == "08:00:00.123456 dump: journal did=criu"


def test_a_line_is_one_line_whatever_is_in_it_and_bounded() -> None:
    odd = {"a": "x\ny\u2028\udcff", "long": "x" * 5000, "many": [*range(1000)], "path": Path("/"), "b": b"\n"}
    event = line.Event(0, 0, ID, "origin", "migrate", 7, "", "", "e", odd)
    written = line.to_json(event)
    assert written.isascii() and written.count(b"\n") == 1 and len(written) < 4000
    what = json.loads(written)["what"]
    assert what["a"] == "x\ny\u2028\udcff"
    assert what["long"].endswith("... and 3000 characters more")
    assert (what["many"][:2], what["many"][50:]) == ([0, 1], ["and 950 more"])


# --- what is told ----------------------------------------------------------------------------------------


def test_what_is_told_is_there_in_order(logs: Path) -> None:
    with log.kept(ID, "origin") as kept:
        log.tell("began", pid=7)
        with log.phase("freeze"):
            log.state("FROZEN", tasks=2)
            log.state("FROZEN")
            with log.phase("look"):
                log.detail("x")
        with contextlib.suppress(ZeroDivisionError), log.phase("dump"):
            raise ZeroDivisionError
        log.ended("MOVED", "all of it")
    told = [(one["phase"], one["state"], one["event"]) for one in lines(logs)]
    assert told == [
        ("", "", "began"),
        ("freeze", "", "phase"),
        ("freeze", "FROZEN", "state"),
        ("look", "FROZEN", "phase"),
        ("look", "FROZEN", "x"),
        ("look", "FROZEN", "phase"),
        ("freeze", "FROZEN", "phase"),
        ("dump", "FROZEN", "phase"),
        ("dump", "FROZEN", "phase"),
        ("", "FROZEN", "ended"),
    ]
    assert [one["what"]["how"] for one in lines(logs) if "how" in one["what"]] == ["done", "done", "failed"]
    clocks = [one["monotonic_ns"] for one in lines(logs)]
    assert clocks == sorted(clocks)
    assert (kept.problem, kept.path) == ("", str(logs / ID))


def test_it_is_private_to_root(logs: Path) -> None:
    before = os.umask(0)
    with log.kept(ID, "origin"):
        log.tell("x")
    os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (logs, logs / ID)] == [0o700, 0o700]
    assert (logs / ID / "origin.jsonl").stat().st_mode & 0o777 == 0o600


def test_others_go_on_with_it_and_an_earlier_one_is_settled_in_between(logs: Path) -> None:
    with log.kept(ID, "origin"):
        log.tell("one")
        with log.kept(OTHER, "destination"):
            log.tell("of the other")
        log.tell("two")
    with log.kept(ID, "origin"):
        log.tell("three")
    assert [one["event"] for one in lines(logs)] == ["one", "two", "three"]
    assert (logs / OTHER / "destination.jsonl").read_bytes().count(b"\n") == 1


@pytest.mark.parametrize(
    ("migration_id", "role", "wanted"), [(ID, "origin", False), (ID, "", True), ("../x", "origin", True)]
)
def test_none_is_kept(logs: Path, migration_id: str, role: str, wanted: bool) -> None:
    with log.kept(migration_id, role, wanted=wanted) as kept:
        log.tell("x")
        log.ended("MOVED", "x")
    assert (kept.path, kept.problem, logs.exists()) == ("", "", False)
    log.tell("nobody listens")
    assert log.problems() == []


def test_an_error_is_told_with_all_that_is_known(logs: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "dump.log").write_text("Error (x.c:1): no")
    (images / "empty.log").touch()
    (images / "pages-1.img").write_text("secret")
    with log.kept(ID, "origin"):
        log.criu_in(images)
        refused = Refused([Reason("port-taken", "destination", "a port", "Free it.")])
        refused.add_note("a note")
        log.error(refused)
        failed = CriuError("no", hint="Look.", details=["d"])
        failed.stamp("dump", "destination")
        log.error(failed)
        log.error(CriuError("again"))
    assert sorted(path.name for path in (logs / ID).iterdir()) == ["origin-criu-dump.log", "origin.jsonl"]
    assert (logs / ID / "origin-criu-dump.log").read_text() == "Error (x.c:1): no"
    first, second, _ = (one["what"] for one in lines(logs))
    assert (first["reasons"], first["details"]) == (["port-taken (destination): a port"], ["a note"])
    assert second == {
        "kind": "CriuError",
        "message": "no",
        "in": "dump",
        "host": "destination",
        "hint": "Look.",
        "details": ["d"],
    }


def test_a_bug_is_told_with_its_traceback(logs: Path) -> None:
    with pytest.raises(ZeroDivisionError), log.kept(ID, "origin"):
        raise ZeroDivisionError("bug")
    (told,) = lines(logs)
    assert told["what"]["kind"] == "ZeroDivisionError"
    assert any("test_events.py" in text for text in told["what"]["details"])


def test_it_is_shown_to_who_wants_to_see_it() -> None:
    for verbosity, wanted in ((0, []), (1, ["main"]), (2, ["main", "all"])):
        seen: list[str] = []
        log.shown(seen.append, verbosity)
        with log.kept(ID, "origin", wanted=False):
            log.tell("main")
            log.detail("all")
        assert [text.split(": ")[1] for text in seen] == wanted
    log.shown(seen.append, 0)


# --- what is lost ----------------------------------------------------------------------------------------


def lost() -> str:
    with log.kept(ID, "origin") as kept:
        log.tell("x")
    return kept.problem


def test_a_link_is_not_followed(logs: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    logs.symlink_to(tmp_path / "elsewhere")
    assert "Not a directory" in lost()
    logs.unlink()
    logs.mkdir(mode=0o700)
    (logs / ID).symlink_to(tmp_path / "elsewhere")
    assert "Not a directory" in lost()
    (logs / ID).unlink()
    (logs / ID).mkdir(mode=0o700)
    (logs / ID / "origin.jsonl").symlink_to(tmp_path / "elsewhere/file")
    assert "symbolic links" in lost()
    assert [*(tmp_path / "elsewhere").iterdir()] == []


@pytest.mark.parametrize("which", ["all", "one"])
@pytest.mark.parametrize("wrong", ["another's", "group", "others"])
def test_a_directory_that_is_not_roots_is_refused(logs: Path, which: str, wrong: str) -> None:
    directory = logs if which == "all" else logs / ID
    directory.mkdir(parents=True, mode=0o700)
    logs.chmod(0o700)
    if wrong == "another's":
        os.chown(directory, 65534, 65534)
    else:
        directory.chmod(0o770 if wrong == "group" else 0o702)
    assert "it is not root's, or others may write to it" in lost()
    assert not (logs / ID / "origin.jsonl").exists()


@pytest.mark.parametrize("kind", ["hard link", "fifo"])
def test_a_file_that_is_not_ours_alone_is_refused(logs: Path, tmp_path: Path, kind: str) -> None:
    (logs / ID).mkdir(parents=True, mode=0o700)
    logs.chmod(0o700)
    if kind == "fifo":
        os.mkfifo(logs / ID / "origin.jsonl")
        reader = os.open(logs / ID / "origin.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    else:
        (tmp_path / "file").touch()
        (logs / ID / "origin.jsonl").hardlink_to(tmp_path / "file")
        reader = os.open(os.devnull, os.O_RDONLY)
    assert "no file of root's alone" in lost()
    os.close(reader)


def test_there_is_no_place_for_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "LOGS", Path("/nonexistent/migrate"))
    assert (
        lost()
        == "the log of this migration is lost, or a part of it: No such file or directory (/nonexistent)"
    )


def test_a_cut_line_does_not_spoil_the_next(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, cut = os.write, [True]

    def full_once(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[:10] if cut and cut.pop() else data)

    monkeypatch.setattr(writer.os, "write", full_once)
    with log.kept(ID, "origin") as kept:
        log.tell("one")
        log.tell("two")
    assert "No space left" in kept.problem
    first, second = (logs / ID / "origin.jsonl").read_bytes().splitlines()
    assert (len(first), json.loads(second)["event"]) == (10, "two")


def test_a_disk_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is what does not fit into memory meanwhile kept."""
    monkeypatch.setattr(limits, "LOG_CLOSE_S", 0.05)
    monkeypatch.setattr(writer, "_MOST_WAITING", 10)
    hangs, threads = threading.Event(), threading.active_count()

    def of(_: str) -> int:
        hangs.wait()
        raise OSError("late")  # no number: the writer would close that descriptor, of whomever it is

    monkeypatch.setattr(writer.directory, "of", of)
    with log.kept(ID, "origin") as kept:
        for _ in range(20):
            log.tell("x")
    assert "there was too much to write" in kept.problem
    hangs.set()
    eventually(lambda: threading.active_count() <= threads, "its thread ends")


def test_a_host_without_room_for_a_thread(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    assert "no other thread could be started" in lost()
    assert not logs.exists()


# --- the old ones ----------------------------------------------------------------------------------------


def test_what_is_too_old() -> None:
    found = [("a", 10.0), ("b", 30.0), ("c", 20.0), ("d", 40.0)]
    assert sweep.too_old(found, 50.0, 100.0, 4) == []
    assert sweep.too_old(found, 50.0, 100.0, 2) == ["c", "a"]
    assert sweep.too_old(found, 50.0, 25.0, 4) == ["c", "a"]
    assert sorted(sweep.too_old(found, 50.0, 25.0, 0)) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("environment", "kept"),
    [
        ({}, (30 * 86400, 200)),
        ({"MIGRATE_LOG_DAYS": "7", "MIGRATE_LOGS": "3"}, (7 * 86400, 3)),
        ({"MIGRATE_LOG_DAYS": "-1", "MIGRATE_LOGS": "all"}, (30 * 86400, 200)),
    ],
)
def test_how_many_are_kept(environment: dict[str, str], kept: tuple[float, int]) -> None:
    assert sweep.kept(environment) == kept


def test_old_ones_go_when_a_new_one_begins(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIGRATE_LOGS", "2")
    names = [f"{number:012x}" for number in range(5)]
    for age, name in enumerate(names):
        (logs / name).mkdir(parents=True)
        (logs / name / "origin.jsonl").touch()
        os.utime(logs / name, (time.time() - 86400 * age,) * 2)
    os.utime(logs / names[0], (0, 0))
    logs.chmod(0o700)
    (logs / "notes").mkdir()
    (logs / OTHER).symlink_to(logs / "notes")  # nothing of ours
    place.home(names[4]).mkdir(parents=True)  # not over on this host
    assert lost() == ""
    assert sorted(path.name for path in logs.iterdir()) == sorted(
        [names[1], names[2], names[4], ID, OTHER, "notes"]
    )


# --- the system's log ------------------------------------------------------------------------------------


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "syslog"))
        made.setblocking(False)
        yield made


@pytest.mark.parametrize(("outcome", "priority"), [("MOVED", 30), ("ROLLED_BACK", 28), ("IN_DOUBT", 27)])
def test_one_line_at_the_end(listener: socket.socket, outcome: str, priority: int) -> None:
    with log.kept(ID, "origin"):
        log.ended(outcome, "PID 7 from a\nto b")
    said = listener.recv(4096).decode()
    assert said.startswith(f"<{priority}>")
    assert said.endswith(f" migrate[{os.getpid()}]: migration {ID}: PID 7 from a?to b")
    with pytest.raises(BlockingIOError):
        listener.recv(1)


def test_nobody_waits_for_the_system_log(listener: socket.socket) -> None:
    while syslog.say("x", syslog.Severity.INFO, "migrate"):
        pass  # until its queue is full
    listener.close()
    assert not syslog.say("x", syslog.Severity.INFO, "migrate")


def test_who_has_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    assert who.in_words(who.asked()) == "root (alice)"
    monkeypatch.delenv("SUDO_USER")
    assert who.in_words({"user": "root", "login": "bob"}) == "root (bob)"
    assert who.in_words({"user": "root", "login": "root"}) == "root"


def test_what_was_asked_for_is_told_by_the_names_of_the_switches(logs: Path) -> None:
    request = Request(pid=os.getpid(), host="h", along=Along(shell_job=True), way=Way(port=22))
    with log.kept(ID, "origin"):
        Chronicle(request)
    (began,) = (one for one in lines(logs) if one["event"] == "began")
    asked = began["what"]["asked"]
    assert (asked["shell_job"], asked["port"], asked["agent"]) == (True, 22, "migrate-agent")
    assert not {"along", "way", "check", "copy_trees"} & asked.keys()
