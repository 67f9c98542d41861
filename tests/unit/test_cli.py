"""Arguments in, one call, exit status out; the driver is the test's."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import json_lines

from migrate import arguments, cli, interrupt, problems
from migrate.errors import CriuError, MigrateError, Reason, Refused
from migrate.report import observer as ui
from migrate.report.report import Outcome, Report
from migrate.request import Along, Named, RecoverRequest, Request, Way

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv(arguments.STOP_AT, raising=False)


def driver(outcome: Outcome, error: Exception | None = None) -> Callable[[Request, ui.Observer], Report]:
    def run(request: Request, observer: ui.Observer) -> Report:
        report = Report(outcome=outcome, pid=request.pid, host=request.host)
        if error is not None:
            report.fail(error)
        return report

    return run


def unused(*_: object) -> Report:
    raise AssertionError("was called")


def last_json(capsys: Capture) -> dict[str, object]:
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def request_of(*argv: str) -> Request:
    seen: list[Request] = []

    def run(request: Request, observer: ui.Observer) -> Report:
        seen.append(request)
        return Report(outcome=Outcome.MOVED)

    assert cli.main(argv, run=run) == 0
    return seen[0]


def test_defaults() -> None:
    assert request_of("42", "root@destination") == Request(pid=42, host="root@destination")


def test_options_stand_anywhere() -> None:
    wanted = Request(pid=42, host="h", check=True, along=Along(copy_files=True))
    for words in ("--check --copy-files 42 h", "42 --check --copy-files h", "42 h --copy-files --check"):
        assert request_of(*words.split()) == wanted


def test_all_options(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "--check -v --copy-files --shell-job --switch address --timeout 2.5 --agent /opt/a --identity k"
    words += " --leave-supervisor --transport ssh --memory none"
    words += " --max-gap 3 --address 10.0.0.1 --address fd00:0::1 --address 10.0.0.1"
    wanted = Request(
        pid=42,
        host="h",
        check=True,
        along=Along(
            copy_files=True, shell_job=True, leave_supervisor=True, addresses=("10.0.0.1", "fd00::1")
        ),
        switch="address",
        timeout_s=2.5,
        max_gap_s=3.0,
        memory="none",
        way=Way(transport="ssh", agent="/opt/a", identity="k", port=2222),
        stop_at="FROZEN",
    )
    assert request_of(*words.split(), "--port", "2222", "--stop-at", "FROZEN", "42", "h") == wanted
    for kind in ("forward", "auto", "forward+address", "forward:10.0.0.1+exec:/a+b", "forward+route:gate"):
        assert request_of("--switch", kind, "42", "h").switch == kind
    assert request_of("--switch", "exec:/etc/network a", "42", "h").switch == "exec:/etc/network a"
    assert request_of("--no-address", "42", "h") == Request(pid=42, host="h", along=Along(no_address=True))
    assert request_of("--check", "42") == Request(pid=42, host="", check=True)
    assert request_of("--check", "--container", "web") == Request(
        pid=0, host="", named=Named(container="web"), check=True
    )
    for name in ("web", "web.service"):
        of_unit = Request(pid=0, host="h", named=Named(unit="web.service"))
        assert request_of("--unit", name, "h") == of_unit
        assert request_of("--check", "--unit", name) == dataclasses.replace(of_unit, host="", check=True)
    for name in ("nginx", ":80", "7zip", "postgres", "x-2.1"):
        assert request_of(name, "h") == Request(pid=0, named=Named(process=name), host="h")
    assert request_of("--container", "web@crun", "h") == Request(
        pid=0, named=Named(container="web@crun"), host="h"
    )
    assert request_of("--container", "web@podman", "h").named.container == "web@podman"
    monkeypatch.setenv(arguments.STOP_AT, "DUMPED")
    assert request_of("42", "h").stop_at == "DUMPED"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "PID and HOST are needed"),
        (["42"], "PID and HOST are needed"),
        (["--check"], "PID and HOST are needed"),
        (["--check", "42", ""], "HOST is a name"),
        (["", "h"], "PID is a number, the name of a program"),
        (["/bin/sh", "h"], "PID is a number, the name of a program"),
        (["a b", "h"], "PID is a number, the name of a program"),
        (["4.2", "h"], "PID is a number from 1"),
        ([":0", "h"], "behind the colon is a number from 1 to 65535"),
        ([":http", "h"], "behind the colon is a number"),
        (["--container", "web"], "HOST alone is needed"),
        (["--container", "web", "42", "h"], "HOST alone is needed"),
        (["--container", "../web", "h"], "--container is the name of a container"),
        (["--container", "web@docker", "h"], "--container is the name of a container"),
        (["--container", "web", "--copy-files", "h"], "no --copy-files"),
        (["0", "h"], "PID is a number"),
        (["-5", "h"], "PID is a number"),
        (["\u0664\u0662", "h"], "PID is a number"),
        (["42", ""], "HOST is a name"),
        (["42", "-oProxyCommand=x"], "-oProxyCommand"),
        (["42", "h;reboot"], "HOST is a name"),
        (["42", "a b@h"], "HOST is a name"),
        (["42", "@h"], "HOST is a name"),
        (["42", "43", "44"], "HOST is missing behind the PIDs: 44"),
        (["42", "4.3", "h"], "PID is a number from 1"),
        (["42", "43", ""], "HOST is a name"),
        (["--report", "t.svg", "42", "43", "h"], "--report is of one process"),
        (["--container", "web", "42", "43", "h"], "HOST alone is needed"),
        (["--unit", "web"], "--unit takes the place of PID: HOST alone is needed"),
        (["--unit", "web", "42", "h"], "HOST alone is needed"),
        (["--unit", "../web", "h"], "--unit is the name of a service"),
        (["--unit", "web", "--container", "web", "h"], "exclude each other"),
        (["--nonsense", "42", "h"], "--nonsense"),
        (["--timeout", "0", "42", "h"], "--timeout"),
        (["--timeout", "nan", "42", "h"], "--timeout"),
        (["--timeout", "0.5", "42", "h"], "--timeout"),
        (["--max-gap", "0", "42", "h"], "--max-gap is a number"),
        (["--port", "70000", "42", "h"], "--port"),
        (["--switch", "dns", "42", "h"], "--switch is one of address"),
        (["--switch", "exec", "42", "h"], "--switch exec is followed by a colon and /COMMAND"),
        (["--switch", "exec:", "42", "h"], "exec:/COMMAND"),
        (["--switch", "exec:network", "42", "h"], "exec:/COMMAND"),
        (["--switch", "exec:/a\n", "42", "h"], "exec:/COMMAND"),
        (["--switch", "route", "42", "h"], "--switch route is followed by a colon and GATEWAY"),
        (["--switch", "forward:", "42", "h"], "forward:ADDRESS"),
        (["--switch", "forward+", "42", "h"], "followed by one of the other ways"),
        (["--switch", "forward+auto", "42", "h"], "followed by one of the other ways"),
        (["--switch", "forward+forward:a", "42", "h"], "followed by one of the other ways"),
        (["--switch", "forward+route", "42", "h"], "route:GATEWAY"),
        (["--switch", "address+forward", "42", "h"], "not 'address+forward'"),
        (["--switch", "auto:x", "42", "h"], "followed by nothing, not by 'x'"),
        (["--end", "0123456789ab"], "--end needs --forwards"),
        (["--forwards", "42", "h"], "--forwards is used alone"),
        (["--forwards", "--recover"], "--forwards is used alone"),
        (["--switch", "none:x", "42", "h"], "--switch none is followed by nothing, not by 'x'"),
        (["--switch", "address:", "42", "h"], "followed by nothing"),
        (["--transport", "telnet", "42", "h"], "--transport is one of paramiko, ssh"),
        (["--memory", "lazy", "42", "h"], "--memory is one of ahead, none"),
        (["--address", "web", "42", "h"], "--address is an IPv4 or IPv6 address"),
        (["--address", "10.0.0.1/24", "42", "h"], "without a prefix length"),
        (["--address", "0.0.0.0", "42", "h"], "--address is an address that clients"),
        (["--address", "::1", "42", "h"], "--address is an address that clients"),
        (["--address", "10.0.0.1", "--no-address", "42", "h"], "exclude each other"),
        (["--agent", "", "42", "h"], "--agent"),
        (["--resume", "x", "42", "h"], "need --recover"),
        (["--report", "t.png", "42", "h"], "ends in .html or .svg"),
        (["--report", "/no/such/t.svg", "42", "h"], "cannot be written to"),
        (["--recover", "--report", "t.svg"], "takes no --report"),
        (["--recover", "42"], "no PID"),
        (["--recover", "--resume", "x", "--release", "y"], "exclude"),
    ],
)
def test_bad_arguments(argv: list[str], text: str, capsys: Capture) -> None:
    assert cli.main(argv, run=unused, run_recover=unused) == 2
    assert text in capsys.readouterr().err
    assert cli.main([*argv, "--json"], run=unused, run_recover=unused) == 2
    report = last_json(capsys)
    assert (report["outcome"], report["exit_status"]) == ("UNTOUCHED", 2)


@pytest.mark.parametrize(
    ("outcome", "error", "status"),
    [
        (Outcome.MOVED, None, 0),
        (Outcome.UNTOUCHED, None, 0),
        (Outcome.UNTOUCHED, CriuError("x"), 3),
        (Outcome.ROLLED_BACK, CriuError("x"), 4),
        (Outcome.IN_DOUBT, MigrateError("x"), 5),
        (Outcome.ROLLED_BACK, KeyError("x"), 70),
    ],
)
def test_exit_status(outcome: Outcome, error: Exception | None, status: int, capsys: Capture) -> None:
    assert cli.main(["--json", "42", "h"], run=driver(outcome, error)) == status
    report = last_json(capsys)
    assert (report["outcome"], report["exit_status"]) == (outcome.value, status)


def test_not_root(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(["42", "h"], run=unused) == 3
    out = capsys.readouterr().out
    assert "migrate needs root" in out
    assert "sudo" in out
    assert cli.main(["--recover"], run_recover=unused) == 3


def test_refusal_that_escapes_is_reported(capsys: Capture) -> None:
    def run(request: Request, observer: ui.Observer) -> Report:
        raise Refused([Reason("a", "destination", "It is full.", "Make room.")])

    assert cli.main(["42", "h"], run=run) == 3
    out = capsys.readouterr().out
    assert "It is full." in out
    assert "-> Make room." in out


def test_bug_that_escapes(capsys: Capture, tmp_path: Path) -> None:
    def run(request: Request, observer: ui.Observer) -> Report:
        raise FileNotFoundError("the driver's own mistake")

    assert cli.main(["42", "h"], run=run) == 70
    captured = capsys.readouterr()
    assert "nothing was done to PID 42" in captured.out
    assert "a bug in migrate (FileNotFoundError)" in captured.out
    assert "Traceback" not in captured.out + captured.err
    (file,) = tmp_path.iterdir()
    assert str(file) in captured.err
    assert file.stat().st_mode & 0o077 == 0
    assert cli.main(["-v", "42", "h"], run=run) == 70
    assert cli.main(["--json", "42", "h"], run=run) == 70
    assert last_json(capsys)["exit_status"] == 70


def test_several_end_with_a_summary(capsys: Capture) -> None:
    pids = [str(os.getppid()), str(os.getpid()), "nginx-that-is-not"]
    ready = driver(Outcome.UNTOUCHED)
    assert cli.main(["--check", "--json", *pids[1:], "h"], run=ready) == 0
    lines = json_lines.read(capsys.readouterr().out)
    assert [one["event"] for one in lines] == ["report", "report", "summary"]
    assert [one["outcome"] for one in lines[-1]["processes"]] == ["READY", "READY"]
    assert [one["named"] for one in lines[-1]["processes"]] == pids[1:]
    assert cli.main([*pids, "h"], run=driver(Outcome.UNTOUCHED)) == 3
    out = capsys.readouterr().out
    assert "is below process" in out and out.count("not begun") == 2 and "PROGRAM" in out
    assert cli.main(["--keep-going", *pids[1:], "h"], run=driver(Outcome.IN_DOUBT, MigrateError("x"))) == 5


def test_recover() -> None:
    seen: list[RecoverRequest] = []

    def run(request: RecoverRequest) -> Report:
        seen.append(request)
        return Report(outcome=Outcome.UNTOUCHED, notes=["nothing was left"])

    assert cli.main(["--recover"], run_recover=run) == 0
    assert cli.main(["--recover", "--release", "ab12"], run_recover=run) == 0
    assert seen == [RecoverRequest(), RecoverRequest(release="ab12")]


def test_whatever_somebody_may_send_is_heeded() -> None:
    """Else the driver would end without a report: by Ctrl-\\ at a terminal, by kill -USR1 for its state."""
    sent = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"]
    assert {signal.Signals[name] for name in sent} <= set(interrupt.SIGNALS)


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_signal_before_the_freeze_is_raised_at_once(number: signal.Signals, capsys: Capture) -> None:
    def run(request: Request, observer: ui.Observer) -> Report:
        signal.raise_signal(number)
        raise AssertionError("went on")

    before = signal.getsignal(number)
    assert cli.main(["--json", "42", "h"], run=run) == 3
    error = last_json(capsys)["error"]
    assert isinstance(error, dict)
    assert error["kind"] == "Interrupted"
    assert number.name in error["message"]
    assert signal.getsignal(number) == before


def test_second_signal_cannot_break_the_rollback() -> None:
    steps: list[str] = []

    def run(request: Request, observer: ui.Observer) -> Report:
        with interrupt.at_checkpoints():
            signal.raise_signal(signal.SIGINT)
            steps.append("not at once")
            with pytest.raises(interrupt.Interrupted):
                interrupt.check()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        interrupt.check()
        steps.append("rolled back")
        return Report(outcome=Outcome.ROLLED_BACK)

    assert cli.main(["42", "h"], run=run) == 4
    assert steps == ["not at once", "rolled back"]


def test_a_terminal_stops_nothing_while_a_process_is_frozen() -> None:
    before = [signal.getsignal(number) for number in interrupt.STOPS]
    with interrupt.handled():
        assert [signal.getsignal(number) for number in interrupt.STOPS] == before
        with interrupt.at_checkpoints():
            assert {signal.getsignal(number) for number in interrupt.STOPS} == {signal.SIG_IGN}
        assert {signal.getsignal(number) for number in interrupt.STOPS} == {signal.SIG_IGN}
    assert [signal.getsignal(number) for number in interrupt.STOPS] == before


def test_signal_is_held_and_stays_pending() -> None:
    with interrupt.handled(), interrupt.at_checkpoints():
        with interrupt.held():
            signal.raise_signal(signal.SIGTERM)
            interrupt.check()
            assert interrupt.requested()
        with pytest.raises(interrupt.Interrupted, match="SIGTERM"):
            interrupt.check()


def test_signal_after_the_freeze_does_not_hide_the_report() -> None:
    """Even after the block: a process that has moved must not be reported as untouched."""

    def run(request: Request, observer: ui.Observer) -> Report:
        with interrupt.at_checkpoints():
            pass
        signal.raise_signal(signal.SIGINT)
        return Report(outcome=Outcome.MOVED)

    assert cli.main(["42", "h"], run=run) == 0


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_signal_after_the_report_does_not_change_the_exit_status(number: signal.Signals) -> None:
    """The interpreter's end takes its time, and a second Ctrl-C finds it there."""
    code = (
        "import atexit, os, signal, sys; from migrate import cli\n"
        "from migrate.report.report import Report, Outcome\n"
        f"os.geteuid = lambda: 0; atexit.register(signal.raise_signal, {int(number)})\n"
        "sys.argv = ['migrate', '42', 'h']\n"
        "sys.exit(cli.main(run=lambda r, o: Report(outcome=Outcome.ROLLED_BACK)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 4


def test_closed_stdout_does_not_change_the_exit_status() -> None:
    code = (
        "import os, sys; from migrate import cli; from migrate.report.report import Report, Outcome\n"
        "os.geteuid = lambda: 0\n"
        "sys.exit(cli.main(['--json', '42', 'h'], run=lambda r, o: Report(outcome=Outcome.ROLLED_BACK)))"
    )
    r, w = os.pipe()
    os.close(r)
    done = subprocess.run([sys.executable, "-c", code], stdout=w, stderr=subprocess.PIPE, timeout=60)
    os.close(w)
    assert (done.returncode, done.stderr) == (4, b"")


def test_version_and_help_load_little() -> None:
    for option in ("--version", "--help"):
        code = f"import sys; from migrate import cli; sys.argv = ['migrate', '{option}']\ntry: cli.main()\n"
        code += "except SystemExit as end: assert not end.code\nassert 'paramiko' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_timeline_of_every_outcome(tmp_path: Path, outcome: Outcome) -> None:
    path = tmp_path / "t.svg"
    error = None if outcome is Outcome.MOVED else CriuError("x")
    status = cli.main(["--report", str(path), "42", "h"], run=driver(outcome, error))
    assert status == int(Report(outcome=outcome, error=error and problems.of(error)).exit_status)
    assert path.read_text().startswith("<svg")


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyError("a bug")])
def test_a_timeline_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, error: Exception
) -> None:
    def write(*_: object) -> None:
        raise error

    monkeypatch.setattr("migrate.report.file.write", write)
    path = tmp_path / "t.svg"
    assert cli.main(["--json", "--report", str(path), "42", "h"], run=driver(Outcome.MOVED)) == 0
    said = capsys.readouterr()
    assert f"the timeline was not written to {path}" in said.err
    assert json.loads(said.out.splitlines()[-1])["outcome"] == "MOVED"
