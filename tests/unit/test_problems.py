"""What becomes of an error that leaves a step: it says where it was, of what, and what to do, on whichever host."""

from __future__ import annotations

import ast
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import migrate
from migrate import errors, problems
from migrate.errors import (
    MAKE_ROOM,
    CriuError,
    Ended,
    MigrateError,
    Problem,
    ProtocolError,
    Reason,
    Refused,
    SwitchError,
    TransportError,
)
from migrate.interrupt import Interrupted
from migrate.link import failure
from migrate.report.report import Outcome, Report
from migrate.report.text import render
from migrate.switch import netlink
from migrate.watch import GivenUp
from tcpcp import errors as tcpcp_errors
from tcpcp.errors import IsolationError, KernelError, TcpcpError

KINDS = [
    kind for kind in vars(tcpcp_errors).values() if isinstance(kind, type) and issubclass(kind, TcpcpError)
]


def left(error: BaseException, phase: str = "dump", host: str = "origin") -> MigrateError:
    """What leaves a step that fails with *error*."""
    with pytest.raises(MigrateError) as caught, problems.step(phase, host):
        raise error
    return caught.value


def test_the_innermost_step_tells() -> None:
    error = CriuError("no", hint="h", details=["d"])
    outer, inner = problems.step("dump", "origin"), problems.step("build", "destination")
    with pytest.raises(CriuError) as caught, outer, inner:
        raise error
    assert caught.value is error
    assert error.problem == Problem("CriuError", "no", "h", ("d",), "build", "destination")


@pytest.mark.parametrize(("here", "there"), [("origin", "destination"), ("destination", "origin")])
def test_what_is_about_the_other_host_says_so(here: str, there: str) -> None:
    assert left(TransportError("silent"), "dump", here).problem.host == there
    told = failure.from_failure(failure.to_failure(left(CriuError("no"), "build", "destination")))
    assert left(told, "restore", "origin").problem.phase == "build"
    assert told.problem.host == "destination"


def test_a_refusal_is_of_the_checks_wherever_it_is_found() -> None:
    error = left(Refused([Reason("version", "destination", "t", "r")]), "connect")
    assert (error.problem.phase, error.problem.host) == ("check", "origin")


def test_a_bug_leaves_as_it_is() -> None:
    with pytest.raises(KeyError), problems.step("dump", "origin"):
        raise KeyError("pid")
    assert problems.of(KeyError("pid")).bug


@pytest.mark.parametrize("host", ["origin", "destination"])
@pytest.mark.parametrize("kind", KINDS)
def test_of_the_library(kind: type[TcpcpError], host: str) -> None:
    """With its notes: what could not be undone."""
    arguments: tuple[object, ...] = ("nft refused",)
    if issubclass(kind, KernelError):
        arguments = ("connect", errno.ENOMEM)
    error = kind(["nft refused"]) if issubclass(kind, tcpcp_errors.IciError) else kind(*arguments)  # type: ignore[arg-type]
    error.add_note("and a socket could not be taken out of repair mode")
    problem = left(error, "isolate", host).problem
    assert (problem.kind, problem.text, problem.phase, problem.host) == (
        kind.__name__,
        str(error),
        "isolate",
        host,
    )
    assert problem.hint and problem.details == ("and a socket could not be taken out of repair mode",)
    assert not problem.bug


def of_the_system() -> Iterator[tuple[OSError, str, str]]:
    """Error, the text, and a word of the hint."""
    yield OSError(errno.ENOSPC, "No space left on device"), "No space left on device", MAKE_ROOM
    full = OSError(errno.ENOSPC, "No space left on device", "/dev/shm/migrate-1/x")
    yield full, "/dev/shm/migrate-1/x: No space left on device", MAKE_ROOM
    full = OSError(errno.ENOSPC, "No space left on device", "/var/x")
    yield full, "/var/x: No space left on device", "file system of /var/x"
    yield FileNotFoundError(errno.ENOENT, "No such file", b"/x"), "/x: No such file", "removed"
    yield OSError(errno.EXDEV, "Cross-device link", "/x", None, "/y"), "/x -> /y: Cross-device link", "dmesg"
    yield OSError("none of them is a tmpfs"), "none of them is a tmpfs", "dmesg"
    yield OSError(errno.EMFILE, "Too many open files", 7), "Too many open files", "ulimit -n"
    yield PermissionError(errno.EPERM, "Not permitted", Path("/x")), "/x: Not permitted", "SELinux"


@pytest.mark.parametrize(("error", "text", "hint"), [*of_the_system()])
def test_of_the_system(error: OSError, text: str, hint: str) -> None:
    error.add_note("n")
    found = left(error, "copy", "destination")
    assert found.problem.text == str(found) == text
    assert (found.problem.kind, found.problem.phase) == (type(error).__name__, "copy")
    assert hint in found.problem.hint and found.problem.details == ("n",)
    assert "Errno" not in text


def test_a_real_one_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(MigrateError) as caught, problems.step("prepare", "origin"):
        os.mkdir(tmp_path / "none" / "x")  # noqa: PTH102
    assert str(caught.value) == f"{tmp_path}/none/x: No such file or directory"


def test_what_is_sent_is_what_is_told(tmp_path: Path) -> None:
    """From a system call of the destination to the user of the origin, nothing is lost."""
    error = left(OSError(errno.ENOSPC, "No space left on device", "/run/x"), "build", "destination")
    error.add_note("n")
    told = failure.from_failure(failure.to_failure(error))
    assert told.problem == error.told()
    report = Report(outcome=Outcome.ROLLED_BACK, host="web2")
    report.fail(left(told, "restore", "origin"))
    assert report.error == error.told()
    lines = render(report)
    assert "  failed  build on destination web2: /run/x: No space left on device" in lines
    assert f"  to do   {MAKE_ROOM}" in lines
    assert set(report.as_json()["error"]) == {"kind", "phase", "role", "message", "hint", "details"}  # type: ignore[call-overload]


def test_an_error_of_the_filter_has_phase_and_hint_on_the_origin() -> None:
    report = Report(outcome=Outcome.ROLLED_BACK)
    report.fail(left(IsolationError("nft refused the batch"), "isolate"))
    assert "  failed  isolate on origin: nft refused the batch" in render(report)
    assert any(line.startswith("  to do   ") and "nft list ruleset" in line for line in render(report))


@pytest.mark.parametrize(
    ("error", "cause", "hint"),
    [
        (CriuError("no"), None, problems.LOOK),
        (CriuError("no", hint="h"), OSError(errno.ENOMEM, "Cannot allocate memory"), "h"),
        (CriuError("no"), OSError(errno.ENOMEM, "Cannot allocate memory"), "Free memory"),
        (CriuError("no"), OSError(errno.ENOSPC, "No space left", "/var/x"), "file system of /var/x"),
        (CriuError("no"), IsolationError("nft refused the batch"), "nft list ruleset"),
        (CriuError("no"), ValueError("4"), problems.LOOK),
        (SwitchError("no"), None, "ip route"),
        (SwitchError("no"), OSError(errno.EPERM, "Operation not permitted"), "SELinux"),
        (SwitchError("no"), OSError(errno.EXDEV, "Cross-device link"), "ip route"),
        (ProtocolError("no"), None, "same version"),
        (TransportError("silent"), None, "is up"),
    ],
)
def test_whoever_says_nothing_of_a_remedy_has_that_of_the_cause_or_the_kind(
    error: MigrateError, cause: Exception | None, hint: str
) -> None:
    with pytest.raises(MigrateError) as caught, problems.step("dump", "origin"):
        raise error from cause
    assert hint in caught.value.problem.hint


@pytest.mark.parametrize(
    "error", [Ended("process 7 has ended"), Interrupted("stopped by SIGINT"), GivenUp("undone"), Refused([])]
)
def test_where_nothing_is_to_be_done_no_remedy_is_told(error: MigrateError) -> None:
    assert left(error).problem.hint == ""


def test_a_refusal_of_netlink_has_a_remedy() -> None:
    step, refused = (
        problems.step("switch", "origin"),
        pytest.raises(SwitchError, match="cannot do it: Operation"),
    )
    with refused as caught, step, netlink.route("do it"):
        raise OSError(errno.EPERM, "Operation not permitted")
    assert "SELinux" in caught.value.problem.hint


#: Raised without a hint, with no cause that has one, and of a kind that has none: file -> how often. One looks at
#: the log of that host's kernel then (problems.LOOK); or it is told in an undo, which shows texts alone.
WITHOUT_A_HINT = {
    "criu/own_namespace.py": 1, "criu/probe.py": 1, "criu/worker.py": 4, "destination/agent.py": 1,
    "destination/incoming.py": 1, "destination/prepared.py": 1, "files/entries.py": 3, "files/growth.py": 1,
    "inventory/translated.py": 2, "journal/entry.py": 1,
    "memory/page_server.py": 6, "memory/pagemap.py": 1,
    "origin/attempt.py": 2, "origin/handover.py": 1, "processes/freezer.py": 1, "processes/ptrace.py": 1,
    "recovery/guardian.py": 1, "runtime/bare.py": 1,
}  # fmt: skip


def _without_a_hint(path: Path) -> int:
    """How many errors of ours *path* makes to be raised, or returns, with no word of what to do."""
    kinds = {one.__name__: one for one in vars(errors).values() if isinstance(one, type)}
    tree, caused = ast.parse(path.read_text()), set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Raise)
            and isinstance(node.exc, ast.Call)
            and isinstance(node.cause, ast.Name)
        ):
            caused.add(node.exc)
    made = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node not in caused]
    named = [(kinds.get(ast.unparse(one.func).rpartition(".")[2]), one) for one in made]
    return sum(
        issubclass(kind, MigrateError)
        and kind.usual_hint is None
        and kind.__init__ is MigrateError.__init__
        and "hint" not in {word.arg for word in one.keywords}
        for kind, one in named
        if kind is not None
    )


def test_what_is_raised_says_what_to_do() -> None:
    """Who adds one that does not thinks of it here: the texts of most say what the user can do."""
    root = Path(migrate.__file__).parent
    paths = [path for path in root.rglob("*.py") if not {"lab", "pb", "testing"} & set(path.parts)]
    found = {path.relative_to(root).as_posix(): _without_a_hint(path) for path in paths}
    assert {name: count for name, count in found.items() if count} == WITHOUT_A_HINT


def test_nobody_says_at_a_raise_where_it_is() -> None:
    """Who runs the step does, and each error takes no more than a text, a hint and details."""
    for path in Path(migrate.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                assert not {one.arg for one in node.exc.keywords} & {"phase", "role", "host"}, (
                    path,
                    node.lineno,
                )
