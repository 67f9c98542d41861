"""``migrate doctor [HOST]``: what migrate needs of this host, and of another one, met or what to do."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from migrate import host_name, interrupt, reached, settings
from migrate.checks.requirements import Finding
from migrate.errors import Exit, MigrateError
from migrate.report.text import clean
from migrate.request import Request
from migrate.ssh import host
from migrate.words import Parser
from tcpcp import exit_status
from tcpcp.version import VERSION

EXITS = {0: "all requirements are met", 2: "wrong arguments", 3: "one is not"}
#: Of the object that --json prints: another one when a field goes or means something else.
SCHEMA = 1


def parser() -> argparse.ArgumentParser:
    """What reads the words behind ``migrate doctor``."""
    made = Parser(
        prog="migrate doctor",
        usage="migrate doctor [options] [HOST]",
        description="Say what migrate needs of this host, and of HOST, where its agent is started: each requirement"
        " on a line, met or what to do. No process is named, and nothing is touched.",
        epilog=exit_status.sentence(EXITS),
        allow_abbrev=False,
    )
    made.add_argument("host", metavar="HOST", nargs="?", help="[user@]host, as ssh understands it")
    made.add_argument("--json", action="store_true", help="one JSON object on standard output")
    reached.add(made.add_argument)
    return made


def main(words: Sequence[str]) -> int:
    """Do what *words* ask; the exit status, see :data:`EXITS`.

    :raises UsageError: they make no sense.
    """
    options, _ = settings.parsed(parser, words, lambda options: options.host or "")
    way = reached.way(options)
    if options.host is not None:
        host.split(options.host)
    try:
        with interrupt.handled():
            findings = _look(Request(pid=0, host=options.host or "", check=True, way=way))
    except (MigrateError, ImportError) as error:
        print(f"migrate doctor: {clean(str(error))}", file=sys.stderr)
        return Exit.UNTOUCHED
    names = {"origin": host_name.here(), "destination": options.host or ""}
    print(json.dumps(_as_json(findings, names)) if options.json else "\n".join(_as_text(findings, names)))
    return Exit.UNTOUCHED if any(not one.met for one in findings) else Exit.MOVED


def _look(request: Request) -> list[Finding]:
    # Here, since it loads the half of Python; --help and wrong arguments need none of it.
    from migrate.origin import examined

    own, found = examined.here()
    return found + (examined.there(request, own) if request.host else [])


def _as_text(findings: Sequence[Finding], names: dict[str, str]) -> list[str]:
    """A line for each."""
    width = max(len(names[one.role]) for one in findings)
    wide = max(len(one.name) for one in findings)
    lines = [
        f"{'ok' if one.met else 'NO'}  {names[one.role]:<{width}}  {one.name:<{wide}}  {one.text}"
        + (f" -> {one.remedy}" if one.remedy else "")
        for one in findings
    ]
    return [clean(line) for line in lines]


def _as_json(findings: Sequence[Finding], names: dict[str, str]) -> dict[str, object]:
    rows = [
        {
            "role": one.role,
            "host": names[one.role],
            "name": one.name,
            "met": one.met,
            "text": one.text,
            "remedy": one.remedy,
        }
        for one in findings
    ]
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "met": all(one.met for one in findings),
        "requirements": rows,
    }
