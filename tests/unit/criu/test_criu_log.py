"""What is told of a CRIU log."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from migrate.criu import log, worker

PEER = "(00.010679)    237: Error (criu/sk-unix.c:2285): unix: FATAL: Peer 578557 unresolved for 576969"
LIMIT = "(00.002805) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted"
END = "(00.010740) Error (criu/cr-restore.c:2331): Restoring FAILED."

PTMX = "tty: Unable to open dev/pts/ptmx with specified index 0"
#: As CRIU 4.2.1 wrote it: the cause, what it led to in each function above, and what others found at the end.
TERMINAL = [
    LIMIT,
    f"(00.059138)  20200: Error (criu/tty.c:625): {PTMX}",
    "(00.059158)  20200: Error (criu/tty.c:1092): tty: Can't open master pty 0xe (index 0)",
    "(00.059160)  20200: Error (criu/files.c:1221): Unable to open fd=3 id=0xe",
    "(00.059335) Error (criu/cr-restore.c:2331): Restoring FAILED.",
    "(00.060649) Error (criu/cgroup.c:2055): cg: cgroupd: recv req error: No such file or directory",
]
LOCK = "Can't dump file 5 of that type [120000] (unknown /proc/7/fd/5)"
DUMP = [
    "(00.01) Warn  (criu/sk-inet.c:1): a warning is no error",
    f"(00.02) Error (criu/files-ext.c:96): {LOCK}",
    "(00.03) Error (criu/cr-dump.c:1717): Dump files (pid: 7) failed with -1",
    "(00.04) Error (criu/cr-dump.c:2129): Dumping FAILED.",
]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (TERMINAL, PTMX),
        (DUMP, LOCK),
        ([DUMP[2], END], "Restoring FAILED."),
        ([LIMIT, PEER, END], "unix: FATAL: Peer 578557 unresolved for 576969"),
        ([END], "Restoring FAILED."),
        ([LIMIT, END], "Restoring FAILED."),
        ([], ""),
    ],
)
def test_the_first_error_that_says_something(lines: list[str], told: str) -> None:
    assert log.sentence(lines) == told


def test_errors_of_a_log(tmp_path: Path) -> None:
    file = tmp_path / "restore.log"
    file.write_text("\n".join(["(00.001) fine", PEER, "(00.002) fine too", END]))
    assert log.errors(file) == [PEER, END]
    file.write_text(
        "\n".join([*DUMP[:1], *TERMINAL, *[f"(00.07) Error (x.c:1): follows {i}" for i in range(90)]])
    )
    assert log.errors(file)[: len(TERMINAL) - 1] == TERMINAL[1:] and len(log.errors(file)) == log.LOG_LINES
    file.write_text(DUMP[0])
    assert log.errors(file) == [DUMP[0]]
    file.write_text("(00.001) fine\n")
    assert log.errors(file) == ["(00.001) fine"]
    assert log.errors(tmp_path / "none.log") == []


def test_an_answer_that_is_none() -> None:
    """Protobuf parses what lacks a required field, and gives bytes where a text is not UTF-8."""
    from pycriu import rpc_pb2 as rpc

    note = rpc.criu_notify(script="post-dump", pid=7)
    whole = rpc.criu_resp(type=rpc.NOTIFY, success=True, notify=note).SerializeToString()
    assert worker.parsed(whole).notify.script == "post-dump"
    for damaged in (b"", b"\xff", whole[:-1], whole.replace(b"post", b"p\xffst"), whole[2:]):
        assert worker.parsed(damaged) is None


def test_a_log_without_a_clock() -> None:
    """CRIU writes the clock only where it writes more than errors."""
    bare = [line.partition(")")[2].strip() for line in (LIMIT, PEER, END)]
    assert all(line[0] in "E2" for line in bare)
    assert log.sentence(bare) == "unix: FATAL: Peer 578557 unresolved for 576969"


def test_who_was_interrupted_while_criu_worked_in_it() -> None:
    lines = [
        "Error (compel/src/lib/infect.c:608): Unexpected 20513 task interruption, aborting",
        "Error (criu/parasite-syscall.c:94): 20514 was stopped by 19 unexpectedly",
        "Error (criu/parasite-syscall.c:94): 20515 was stopped by 5 unexpectedly",
        "Error (criu/parasite-syscall.c:94): 20516 was stopped by 11 unexpectedly",
    ]
    assert log.interrupted([*lines, PEER, END]) == {
        20513: {signal.SIGSTOP, signal.SIGCONT},
        20514: {signal.SIGSTOP},
        20515: {signal.SIGCONT},
    }
