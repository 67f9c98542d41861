"""What is told of a CRIU log."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate import criu

PEER = "(00.010679)    237: Error (criu/sk-unix.c:2285): unix: FATAL: Peer 578557 unresolved for 576969"
LIMIT = "(00.002805) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted"
END = "(00.010740) Error (criu/cr-restore.c:2331): Restoring FAILED."


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([LIMIT, PEER, END], "unix: FATAL: Peer 578557 unresolved for 576969"),
        ([END], "Restoring FAILED."),
        ([LIMIT, END], "Restoring FAILED."),
        ([], ""),
    ],
)
def test_the_last_error_that_says_something(lines: list[str], told: str) -> None:
    assert criu._sentence(lines) == told


def test_errors_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "restore.log"
    log.write_text("\n".join(["(00.001) fine", PEER, "(00.002) fine too", END]))
    assert criu.log_errors(log) == [PEER, END]
    log.write_text("(00.001) fine\n")
    assert criu.log_errors(log) == ["(00.001) fine"]
    assert criu.log_errors(tmp_path / "none.log") == []


def test_an_answer_that_is_none() -> None:
    """Protobuf parses what lacks a required field, and gives bytes where a text is not UTF-8."""
    from pycriu import rpc_pb2 as rpc

    note = rpc.criu_notify(script="post-dump", pid=7)
    whole = rpc.criu_resp(type=rpc.NOTIFY, success=True, notify=note).SerializeToString()
    assert criu.parsed(whole).notify.script == "post-dump"
    for damaged in (b"", b"\xff", whole[:-1], whole.replace(b"post", b"p\xffst"), whole[2:]):
        assert criu.parsed(damaged) is None
