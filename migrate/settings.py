"""What ``/etc/migrate/config.toml`` and ``~/.config/migrate/config.toml`` say: defaults of options, and hooks.

What is said on the command line is in force; then what a file says of the host, and then what it says of all
hosts; the user's file before that of the system. A file that others may write is refused, and so is a word in
it that nobody knows.
"""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrate.errors import UsageError

SYSTEM = Path("/etc/migrate/config.toml")
#: Below the user's home.
USER = Path(".config/migrate/config.toml")
#: Options that may stand in a file; the others are about one call, or change what it means.
OPTIONS = (
    "address",
    "agent",
    "copy-files",
    "copy-tree",
    "identity",
    "leave-supervisor",
    "max-gap",
    "memory",
    "no-address",
    "port",
    "shell-job",
    "switch",
    "timeout",
    "transport",
)
HOOKS = ("before", "after")
_TABLES = ("options", "host", "hooks")
_MOST_BYTES = 1 << 20
_REMEDY = "Correct the file, or pass --no-config. See `man migrate.conf`."

Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """What is in force of the files.

    :ivar lines: for people: each option that the command line does not say otherwise, and each hook, with its file.
    :ivar before, after: commands, in the order in which they are called.
    """

    lines: tuple[str, ...] = ()
    before: tuple[Command, ...] = ()
    after: tuple[Command, ...] = ()


@dataclass(frozen=True, slots=True)
class _File:
    """One that was read and is whole.

    :ivar options: of every host; *hosts*: of each, by its name.
    """

    path: Path
    options: dict[str, Any]
    hosts: dict[str, dict[str, Any]]
    hooks: dict[str, list[Command]]


def parsed(
    make: Callable[[], argparse.ArgumentParser],
    words: Sequence[str],
    host: Callable[[argparse.Namespace], str],
) -> tuple[argparse.Namespace, Settings]:
    """Read *words*, with what the files say as defaults, and what is in force of these.

    :param make: makes the parser; of what the files say it takes what it has options for.
    :param host: the HOST that was named, as it was written; "": the files are not looked at.
    :raises UsageError: the words, or a file, make no sense.
    """
    options = make().parse_intermixed_args(words)
    if options.no_config or not (named := host(options)):
        return options, Settings()
    if not (files := list(_files())):
        return options, Settings()
    said: dict[str, tuple[Any, Path]] = {}
    for file in files:
        said |= {key: (value, file.path) for key, value in file.options.items()}
    for file in files:
        for name in (named.rpartition("@")[2], named):
            said |= {key: (value, file.path) for key, value in file.hosts.get(name, {}).items()}
    said = {key: found for key, found in said.items() if hasattr(options, _dest(key))}
    parser, bare = make(), make()
    parser.set_defaults(**{_dest(key): value for key, (value, _) in said.items()})
    bare.set_defaults(**{_dest(key): None for key in said})
    own = vars(bare.parse_intermixed_args(words))
    lines = [f"{path}: --{key} {value}" for key, (value, path) in said.items() if own[_dest(key)] is None]
    lines += [
        f"{file.path}: hook {kind} {' '.join(one)}"
        for file in files
        for kind in HOOKS
        for one in file.hooks[kind]
    ]
    before, after = (tuple(one for file in files for one in file.hooks[kind]) for kind in HOOKS)
    return parser.parse_intermixed_args(words), Settings(tuple(lines), before, after)


def host_of(options: argparse.Namespace) -> str:
    """HOST among the words of ``migrate``; "" where none is moved to."""
    if options.recover or options.forwards:
        return ""
    alone = options.check and len(options.pid) == 1 and not (options.container or options.unit)
    return "" if alone or not options.pid else str(options.pid[-1])


def _dest(key: str) -> str:
    return key.replace("-", "_")


def _files() -> Iterator[_File]:
    """Those that there are: the system's, then the user's."""
    for path in dict.fromkeys((SYSTEM, Path.home() / USER)):
        if (text := _read(path)) is not None:
            yield _checked(path, text)


def _read(path: Path) -> str | None:
    """The text of *path*, None if there is none.

    :raises UsageError: it cannot be read, or others may write it, or put another one in its place.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if os.geteuid():  # whoever is not root is told that first
            return None
        raise _wrong(path, f"cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        for what, status in ((path, found), (path.parent, path.parent.stat())):
            if status.st_uid not in (0, os.geteuid()):
                raise _wrong(what, f"belongs to UID {status.st_uid}, and could be changed by that user")
            if status.st_mode & 0o022:
                raise _wrong(what, f"may be written by others (mode {stat.S_IMODE(status.st_mode):04o})")
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
            raise _wrong(path, "is no file of a few lines")
        try:
            return file.read(_MOST_BYTES).decode()
        except UnicodeDecodeError:
            raise _wrong(path, "is no text in UTF-8") from None


def _checked(path: Path, text: str) -> _File:
    """What *text* says. :raises UsageError: it makes no sense."""
    import tomllib  # here, since most calls have no file

    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _wrong(path, f"is no TOML: {error}") from None
    _known(path, "", found, _TABLES)
    for name in _TABLES:
        if not isinstance(found.setdefault(name, {}), dict):
            raise _wrong(path, f"{name} is no table")
    hosts: dict[str, dict[str, Any]] = {}
    for name, table in found["host"].items():
        if not isinstance(table, dict):
            raise _wrong(path, f"host.{name} is no table")
        hosts[name] = _options(path, f"host.{name}.", table)
    _known(path, "hooks.", found["hooks"], HOOKS)
    hooks = {kind: [*_commands(path, kind, found["hooks"].get(kind, []))] for kind in HOOKS}
    return _File(path, _options(path, "options.", found["options"]), hosts, hooks)


def _options(path: Path, where: str, table: dict[str, Any]) -> dict[str, Any]:
    _known(path, where, table, OPTIONS)
    return {key: _value(path, f"{where}{key}", key, value) for key, value in table.items()}


def _value(path: Path, where: str, key: str, value: Any) -> Any:
    """What the command line would have of it; what the words mean is judged there."""
    if key in ("copy-files", "leave-supervisor", "no-address", "shell-job"):
        if not isinstance(value, bool):
            raise _wrong(path, f"{where} is true or false")
        return value
    if key in ("address", "copy-tree"):
        if not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            raise _wrong(path, f"{where} is a list of strings")
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _wrong(path, f"{where} is a string or a number")
    return str(value)


def _commands(path: Path, kind: str, value: Any) -> Iterator[Command]:
    for one in value if isinstance(value, list) else [value]:
        if not (
            isinstance(one, list) and one and all(isinstance(word, str) and "\0" not in word for word in one)
        ):
            raise _wrong(path, f"hooks.{kind} is a list of commands, each a list of strings")
        if not one[0].startswith("/"):
            raise _wrong(path, f"hooks.{kind}: a command begins with the path of its program, not {one[0]!r}")
        yield tuple(one)


def _known(path: Path, where: str, table: dict[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            raise _wrong(path, f"{where}{key} is not known; what may stand there: {', '.join(known)}")


def _wrong(path: Path, text: str) -> UsageError:
    return UsageError(f"{path}: {text}", hint=_REMEDY)
