"""Write the manual pages and the completion of every command, from the parsers that also make its --help.

    tools/manual.py [DIRECTORY]

DIRECTORY (default: the repository) receives manual/ and plugin/manual/. The result is committed: what installs the
commands has no need of what makes it, and who changes an option sees what becomes of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(HERE), str(HERE / "plugin"), str(HERE / "tools")]

import completion  # noqa: E402

from migrate import arguments, doctor, errors, limits, settings  # noqa: E402
from migrate.criu import plugin_command, setup  # noqa: E402
from migrate.destination import usage  # noqa: E402
from migrate.lab import arguments as lab  # noqa: E402
from migrate.origin import ps  # noqa: E402
from tcpcp import cli as tcpcp  # noqa: E402
from tcpcp.helper import __main__ as helper  # noqa: E402
from tcpcp.version import VERSION  # noqa: E402

#: A page has to have a day, and the same one each time that it is made: when its form has changed.
_DATE = "2026-11-28"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The manual page of a command.

    :ivar what: a few words, as for apropos(1).
    :ivar exits: status -> what it says.
    :ivar under: parsers of words that the command takes instead of its own, with their statuses.
    :ivar more: heading -> [(name, what it is)] or [text], behind the rest.
    :ivar see: pages, e.g. ``migrate(1)``.
    """

    name: str
    section: int
    what: str
    make: Callable[[], argparse.ArgumentParser]
    exits: Mapping[int, str]
    into: str = "manual"
    under: tuple[tuple[Callable[[], argparse.ArgumentParser], Mapping[int, str]], ...] = ()
    more: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    see: tuple[str, ...] = ()


_LOGS = (
    ("/var/log/migrate/ID", "The log of a migration, on both hosts."),
    ("/etc/migrate/config.toml, ~/.config/migrate/config.toml", "Defaults, and hooks: see migrate.conf(5)."),
    ("/run/migrate", "Journals of migrations that are under way, or have died: see --recover."),
)
_FILES = (
    "Each is a file in TOML, and need not be there. What is said on the command line is in force; then"
    " what a file says of the host, then what it says of all hosts; the user's file before that of the"
    " system. Where an option may be said several times, the command line adds to it. A file, or its"
    " directory, that another user owns or may write is refused, and so is a word that is not known; --no-"
    " config looks at none. migrate --check says what is in force of them. --recover and --forwards do not"
    " look at them."
)
_TABLE = (
    "In the table [options], for all hosts, and in [host.NAME], for the host that is named so on the"
    " command line, with or without user@:"
)
_HOOKS = (
    "In the table [hooks], before and after are lists of commands; each is a list of strings, the first"
    " of which is the path of a program. No shell reads them. Those of both files are called, first the"
    " system's. Each gets a JSON object on its standard input: schema (1), hook, host, pid, process,"
    " container and unit, as they were named; those after the move also report, the last line of --json. One that"
    f" does not end with status 0 within {limits.HOOK_S:g} s has failed. Before: called before anything is"
    " looked at; if one fails nothing is begun (exit status 3), and those behind it are not called. After:"
    " called in the end, whatever became of the process, unless one before has failed; that one fails is a"
    " note in the report. A check calls none."
)
_EXAMPLE = """\
[options]
transport = "ssh"
max-gap = 5

[host."b.example"]
agent = "/opt/migrate/bin/migrate-agent"
port = 2222

[hooks]
before = [["/usr/local/bin/drain", "web"]]
after = [["/usr/local/bin/undrain", "web"]]
"""
_VARIABLES = (
    ("MIGRATE_LOG_DAYS", "How many days logs are kept."),
    ("MIGRATE_LOGS", "How many logs are kept."),
    ("MIGRATE_CRIU", "The program criu to use, instead of that beside migrate, or on PATH."),
    ("NO_COLOR", "If it is set, and not empty, nothing is coloured."),
)
_EXAMPLES = (
    ("migrate --check 4711 root@b.example", "Say whether it would work, with all reasons if not."),
    ("migrate nginx b.example", "Move the one tree of that program that there is on this host."),
    ("migrate doctor b.example", "Say what both hosts lack of what is needed."),
    ("migrate --recover", "Undo or explain what a migration that died left on this host."),
)
PAGES = (
    Page(
        name="migrate",
        section=1,
        what="move a running process with its TCP connections to another host",
        make=arguments.parser,
        exits=errors.MEANS,
        under=(
            (ps.parser, ps.EXITS),
            (doctor.parser, doctor.EXITS),
            (plugin_command.parser, plugin_command.EXITS),
        ),
        more={"ENVIRONMENT": _VARIABLES, "FILES": _LOGS, "EXAMPLES": _EXAMPLES},
        see=(
            "migrate.conf(5)",
            "migrate-agent(8)",
            "migrate-criu(8)",
            "migrate-lab(1)",
            "tcpcp(1)",
            "ssh(1)",
            "criu(8)",
        ),
    ),
    Page(
        name="migrate-agent",
        section=8,
        what="the part of migrate on the destination, or on a gateway",
        make=usage.parser,
        exits=usage.EXITS,
        more={"ENVIRONMENT": _VARIABLES[:3], "FILES": _LOGS},
        see=("migrate(1)", "sshd(8)"),
    ),
    Page(
        name="migrate-criu",
        section=8,
        what="get a CRIU that works, and its pycriu",
        make=setup.parser,
        exits=setup.EXITS,
        see=("migrate(1)", "criu(8)"),
    ),
    Page(
        name="migrate-lab",
        section=1,
        what="four hosts on this machine, to try migrate with",
        make=lab.make_parser,
        exits=lab.EXITS,
        more={"ENVIRONMENT": (("MIGRATE_LAB_CACHE", "Where kernels and roots of machines are kept."),)},
        see=("migrate(1)", "ip-netns(8)"),
    ),
    Page(
        name="tcpcp",
        section=1,
        what="look at images of TCP connections",
        make=tcpcp._parser,
        exits=tcpcp.EXITS,
        into="plugin/manual",
        see=("tcpcp-helper(8)", "tcp(7)"),
    ),
    Page(
        name="tcpcp-helper",
        section=8,
        what="pass TCP connections for users without CAP_NET_ADMIN",
        make=helper._parser,
        exits=helper.EXITS,
        into="plugin/manual",
        see=("tcpcp(1)", "capabilities(7)"),
    ),
)


def escaped(text: str) -> str:
    """*Text* as roff takes it: no line of it is a request, and a hyphen can be copied as one."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text


def bold(text: str) -> str:
    return f"\\fB{escaped(text)}\\fR"


def italic(text: str) -> str:
    return f"\\fI{escaped(text)}\\fR"


def synopsis(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Each use on a line of its own."""
    text = parser.format_usage().removeprefix("usage:")
    if parser.usage is None:
        text = " ".join(text.split())
    uses = [" ".join(one.split()) for one in text.replace("\n                   ", " ").splitlines()]
    for number, use in enumerate(one for one in uses if one):
        yield from ([".br"] if number else [])
        program, _, rest = use.partition(" ")
        yield f"{bold(program)} {escaped(rest)}".rstrip()


def called(action: argparse.Action) -> str:
    """An option with its value, or an argument."""
    name = action.metavar if isinstance(action.metavar, str) else action.dest
    if action.choices and action.metavar is None:
        name = "|".join(map(str, action.choices))
    if not action.option_strings:
        return italic(name)
    options = ", ".join(map(bold, action.option_strings))
    return options if action.nargs == 0 else f"{options} {italic(name)}"


def described(parser: argparse.ArgumentParser, *, options: bool) -> Iterator[str]:
    """Its options, or its arguments; what the help does not show stays away."""
    formatter = parser._get_formatter()
    for action in parser._actions:
        subcommands = isinstance(action, argparse._SubParsersAction)
        if action.help != argparse.SUPPRESS and not subcommands and bool(action.option_strings) == options:
            yield from (".TP", called(action), escaped(formatter._expand_help(action) if action.help else ""))


def subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Parsers of the words that it takes first, and what each does."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {one.dest: one.help or "" for one in action._choices_actions}
            yield from ((made, helps[name]) for name, made in action.choices.items())


def of_commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    for one, what in subcommands(parser):
        yield from (f".SS {escaped(one.prog)}", escaped(what[:1].upper() + what[1:] + "."))
        yield from described(one, options=False)
        yield from described(one, options=True)


def statuses(exits: Mapping[int, str]) -> Iterator[str]:
    for status, text in exits.items():
        yield from (".TP", bold(str(int(status))), escaped(text[:1].upper() + text[1:] + "."))


def lines(page: Page) -> Iterator[str]:
    """The page, in man(7)."""
    parser = page.make()
    yield '.\\" Made by tools/manual.py; not to be edited.'
    yield f'.TH {page.name.upper()} {page.section} "{_DATE}" "{page.name} {VERSION}" "tcp-migrate"'
    yield from (".SH NAME", f"{escaped(page.name)} \\- {escaped(page.what)}", ".SH SYNOPSIS")
    yield from synopsis(parser)
    yield from (".SH DESCRIPTION", escaped(parser.description or ""))
    yield from headed("ARGUMENTS", described(parser, options=False))
    yield from headed("OPTIONS", described(parser, options=True))
    yield from headed("COMMANDS", of_commands(parser))
    yield from headed("EXIT STATUS", statuses(page.exits))
    for make, exits in page.under:
        one = make()
        yield from (f".SH {escaped(one.prog.upper())}", escaped(one.description or ""))
        yield from described(one, options=False)
        yield from described(one, options=True)
        yield from of_commands(one)
        yield from (f".SS Exit status of {escaped(one.prog)}", *statuses(exits))
    for heading, rows in page.more.items():
        yield f".SH {heading}"
        for name, text in rows:
            yield from (".TP", bold(name), escaped(text))
    yield from (".SH SEE ALSO", ", ".join(reference(one) for one in page.see))


def headed(heading: str, body: Iterator[str]) -> Iterator[str]:
    found = list(body)
    yield from ([f".SH {heading}", *found] if found else [])


def reference(text: str) -> str:
    name, _, section = text.partition("(")
    return f"{bold(name)}({section}"


def of_configuration() -> Iterator[str]:
    """migrate.conf(5): what may stand in the files, with what the options say of themselves."""
    parser = arguments.parser()
    yield '.\\" Made by tools/manual.py; not to be edited.'
    yield f'.TH MIGRATE.CONF 5 "{_DATE}" "migrate {VERSION}" "tcp-migrate"'
    yield from (".SH NAME", "migrate.conf \\- defaults of migrate, and hooks", ".SH SYNOPSIS")
    yield from (
        italic(str(settings.SYSTEM)),
        ".br",
        italic(f"~/{settings.USER}"),
        ".SH DESCRIPTION",
        escaped(_FILES),
    )
    yield from (".SH OPTIONS", escaped(_TABLE))
    for key in settings.OPTIONS:
        (action,) = (one for one in parser._actions if f"--{key}" in one.option_strings)
        value = "true" if action.nargs == 0 else str(action.metavar)
        value = f"[{value}, ...]" if isinstance(action, argparse._AppendAction) else value
        yield from (
            ".TP",
            f"{bold(key)} = {italic(value)}",
            escaped(parser._get_formatter()._expand_help(action)),
        )
    yield from (".SH HOOKS", escaped(_HOOKS))
    yield from (".SH EXAMPLE", ".nf", *(escaped(line) for line in _EXAMPLE.splitlines()), ".fi")
    yield from (".SH SEE ALSO", f"{reference('migrate(1)')}")


def main() -> int:
    """Write all of it; 0."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else HERE)
    for page in PAGES:
        path = out / page.into / f"{page.name}.{page.section}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines(page)) + "\n")
        if page.name == "migrate":
            path.with_name("migrate.conf.5").write_text("\n".join(of_configuration()) + "\n")
        for file, text in completion.scripts(page.make(), [make() for make, _ in page.under]):
            (path.parent / file).parent.mkdir(exist_ok=True)
            (path.parent / file).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
