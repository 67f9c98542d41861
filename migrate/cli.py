"""``migrate``: argv -> one call -> exit status. Policy is elsewhere.

Exit status: where the process is, see :class:`migrate.errors.Exit`.

For tests there is ``--stop-at STATE`` (or ``MIGRATE_STOP_AT``): the driver stops when the machine reaches
that state, says so with a note, and waits to be killed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from migrate import arguments, environment, hooks, host_name, interrupt, problems, settings, wanted
from migrate.errors import Exit, MigrateError, Reason, Refused, UsageError
from migrate.events import log
from migrate.report import file as report_file
from migrate.report import observer as ui
from migrate.report.report import Outcome, Report
from migrate.report.text import clean
from migrate.request import ForwardsRequest, RecoverRequest, Request, SeveralRequest

if TYPE_CHECKING:
    from migrate.processes.chosen import Subject

Run = Callable[[Request, ui.Observer], Report]
_NOT_ROOT = Reason("not-root", "origin", "migrate needs root", "Run it as root, e.g. by sudo.")
RunRecover = Callable[[RecoverRequest], Report]


def main(
    argv: Sequence[str] | None = None, run: Run | None = None, run_recover: RunRecover | None = None
) -> int:
    """Do what *argv* asks, show it on the standard streams, and return the exit status.

    :param run, run_recover: for tests, instead of those of :mod:`migrate.origin.run` and
    :mod:`migrate.recovery.recover`.
    """
    environment.prepare(again=argv is None)
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words and (command := _COMMANDS.get(words[0])):
            return command(words[1:])
        options, said = settings.parsed(arguments.parser, words, settings.host_of)
        asked = wanted.request(options)
    except UsageError as error:
        return _usage(error, json_lines="--json" in words)
    if isinstance(asked, ForwardsRequest):
        return _forwards(asked)
    with interrupt.handled(last=argv is None):
        if isinstance(asked, SeveralRequest):
            status = _several(asked, options, said, run)
        else:
            one = _as_configured(run or _migrate, said)
            status = _told(asked, options, one, run_recover).exit_status
    _close_stdout()
    return int(status)


def _told(
    asked: Request | RecoverRequest,
    options: argparse.Namespace,
    run: Run,
    run_recover: RunRecover | None = None,
) -> Report:
    """Make the one call, and tell the user how it ended."""
    verbose = options.verbose > 0
    observer = ui.choose(sys.stdout, sys.stderr, json_lines=options.json, verbose=verbose)
    log.shown(observer.event, options.verbose)
    report = _run(asked, observer, run, run_recover)
    with interrupt.held():
        observer.finished(report)
        _write_report(asked, report)
        _save_bug(report, verbose)
    return report


def _several(
    asked: SeveralRequest, options: argparse.Namespace, said: settings.Settings, run: Run | None
) -> Exit:
    """Make a call for each, and tell how each ended, and all."""
    # Here, as the driver itself.
    from migrate.origin import several
    from migrate.report import summary

    def call(request: Request, subject: Subject | None, refused: Refused | None) -> Report:
        def refuse(asked: Request, observer: ui.Observer) -> Report:
            assert refused is not None
            raise refused

        def one(asked: Request, observer: ui.Observer) -> Report:
            return run(asked, observer) if run is not None else _migrate(asked, observer, subject)

        return _told(request, options, _as_configured(one, said) if refused is None else refuse)

    lines = several.run(asked, call)
    with contextlib.suppress(OSError):
        if options.json:
            print(ui.line(**summary.as_json(lines)), flush=True)
        else:
            print("\n" + "\n".join(summary.table(lines)), flush=True)
    return summary.exit_status(lines)


def _run(
    asked: Request | RecoverRequest, observer: ui.Observer, run: Run, run_recover: RunRecover | None
) -> Report:
    """Make the one call. What escapes it did so before anything was frozen: that is the driver's promise."""
    try:
        if os.geteuid() != 0:
            raise Refused([_NOT_ROOT])
        if isinstance(asked, RecoverRequest):
            return (run_recover or _recover)(asked)
        if cramped := environment.problems():
            remedy = "Raise the hard limit: ulimit -H."
            raise Refused([Reason("host-problem", "origin", text, remedy) for text in cramped])
        return run(asked, observer)
    except Exception as error:
        error = _missing(error) if isinstance(error, ImportError) else error
        report = Report(outcome=Outcome.UNTOUCHED)
        report.trace.hosts["origin"] = host_name.here()
        if isinstance(asked, Request):
            report.pid, report.host = asked.pid, asked.host
            here = host_name.here(other=asked.host)
            report.where = f"nothing was done to PID {asked.pid} on {here}"
        report.fail(error)
        if not isinstance(error, MigrateError):
            assert report.error is not None
            report.error = problems.as_bug(report.error)
        return report


def _as_configured(run: Run, said: settings.Settings) -> Run:
    """*run*, with the hooks of the configuration around it; a check says what is in force of it instead."""

    def called(asked: Request, observer: ui.Observer) -> Report:
        if not asked.check:
            hooks.before(said.before, asked)
        report = run(asked, observer)
        report.notes += said.lines if asked.check else hooks.after(said.after, asked, report.as_json())
        return report

    return called


def _missing(error: ImportError) -> Exception:
    """A package that is not there is no bug."""
    text = f"what migrate needs is missing in this Python: {error}"
    return Refused(
        [Reason("not-installed", "origin", text, "Install migrate again, with all that it requires.")]
    )


def _migrate(asked: Request, observer: ui.Observer, chosen: Subject | None = None) -> Report:
    # Here, since it loads the half of Python; --version and wrong arguments need none of it.
    from migrate.origin import run as origin

    return origin.run(asked, observer, chosen)


def _forwards(asked: ForwardsRequest) -> int:
    if os.geteuid() != 0:
        print(f"migrate: {_NOT_ROOT.text}. {_NOT_ROOT.remedy}", file=sys.stderr)
        return int(Exit.UNTOUCHED)
    from migrate.switch.forward import command

    return command.main(asked.end)


def _plugin(words: Sequence[str]) -> int:
    from migrate.criu import plugin_command

    return plugin_command.main(words)


def _ps(words: Sequence[str]) -> int:
    from migrate.origin import ps

    return ps.main(words)


def _doctor(words: Sequence[str]) -> int:
    from migrate import doctor

    return doctor.main(words)


#: By the first word: each reads those behind it.
_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"plugin": _plugin, "ps": _ps, "doctor": _doctor}


def _recover(asked: RecoverRequest) -> Report:
    from migrate.recovery import recover

    return recover.run(asked)


# --- the end ---------------------------------------------------------------------------------------------


def _usage(error: UsageError, *, json_lines: bool) -> int:
    error.stamp("usage", "origin")
    with contextlib.suppress(OSError):
        if json_lines:
            report = Report(outcome=Outcome.UNTOUCHED, error=problems.of(error))
            ui.choose(sys.stdout, sys.stderr, json_lines=True, verbose=False).finished(report)
        print(f"migrate: {error}. {error.problem.hint}", file=sys.stderr, flush=True)
    _close_stdout()
    return int(Exit.USAGE)


def _write_report(asked: Request | RecoverRequest, report: Report) -> None:
    """Write the timeline that was asked for. Without it the process is still where the exit status says."""
    if not isinstance(asked, Request) or not asked.report_file:
        return
    try:
        report_file.write(asked.report_file, report)
    except Exception as error:
        with contextlib.suppress(OSError):
            text = f"migrate: the timeline was not written to {asked.report_file}: {error}"
            print(clean(text), file=sys.stderr, flush=True)


def _save_bug(report: Report, verbose: bool) -> None:
    """Keep the traceback of a bug in a file, unless it has just been shown."""
    if report.error is None or not report.error.bug or verbose:
        return
    with contextlib.suppress(OSError):
        descriptor, path = tempfile.mkstemp(prefix="migrate-bug-", suffix=".txt")
        with os.fdopen(descriptor, "w") as file:
            file.write("\n".join([report.error.text, *report.error.details]) + "\n")
        print(f"migrate: the traceback is in {path}", file=sys.stderr, flush=True)


def _close_stdout() -> None:
    """Flush; a reader that has gone must not turn into another exit status at the interpreter's end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


if __name__ == "__main__":
    sys.exit(main())
