"""The lines of a journal: JSON objects of a few kinds, whose fields are of known types. Pure.

Who undoes a migration may be another program than the one that wrote the journal, of another version, after a
crash. So a line is looked at before anything is done with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from migrate.processes.identity import Identity

#: Of the format; in the first line. What a later one says is not understood here, and not undone in part.
VERSION = 1
#: Numbers of processes, and starts in clock ticks and inodes, are below these.
_MOST_PID, _MOST = 1 << 31, 1 << 63

_Test = Callable[[Any], bool]


def text(value: Any) -> bool:
    """Whether it is a text, as of a name or a path."""
    return isinstance(value, str) and "\0" not in value


def number(value: Any) -> bool:
    """Whether it is a whole number of a size that the kernel may have said."""
    return type(value) is int and -_MOST <= value < _MOST  # a bool is an int, too


def _pid(value: Any) -> bool:
    return number(value) and 0 <= value < _MOST_PID


def _list(test: _Test) -> _Test:
    return lambda value: isinstance(value, list) and all(map(test, value))


def _task(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and _pid(value[0]) and number(value[1])


def _reach(value: Any) -> bool:
    """How the destination was reached: as :class:`migrate.journal.reach.Reach` has it."""
    tests = {"port": lambda one: one is None or number(one), "sudo": lambda one: isinstance(one, bool)}
    return isinstance(value, dict) and all(tests.get(name, text)(one) for name, one in value.items())


#: A field means the same in every kind of line.
_TYPES: Mapping[str, _Test] = {
    "did": text, "state": text, "end": text, "role": text, "other_host": text, "destination_pid": _pid,
    "path": text, "backup": text, "name": text, "marked": text, "folder": text, "pid": _pid, "start": number,
    "runtime": text, "container": text, "bundle": text, "network": text,
    "resource": number, "soft": number, "raised": number,
    "tasks": _list(_task), "routes": _list(text),
    "reuse": lambda value: value is True or _list(number)(value),
    "reach": _reach, "owner": _task, "version": number,
    "details": lambda value: isinstance(value, dict),
}  # fmt: skip
#: Fields that are read by others than the undo of that one entry.
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "stop": ("tasks",), "repair": ("tasks",), "copied": ("backup",), "freezer": ("path",),
    "keeper": ("pid", "start"), "criu": ("pid", "start"),
}  # fmt: skip


def parse(line: bytes) -> dict[str, Any]:
    """The object in *line*: an entry (``did``), a state, an end, or the first line.

    :raises ValueError: it is none, lacks a field that others rely on, or one is of another type. An entry that
        nobody here can undo is no error: that is told when somebody tries.
    """
    try:
        found = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("not an object")
    if number(found.get("version")) and found["version"] > VERSION:
        raise ValueError(f"it is of version {found['version']}, and this migrate reads up to {VERSION}")
    for name in (name for name, test in _TYPES.items() if name in found and not test(found[name])):
        raise ValueError(f"{name} makes no sense")
    for name in (name for name in _needed(found) if name not in found):
        raise ValueError(f"{name} is missing")
    return found


def owner(first: Mapping[str, Any]) -> Identity | None:
    """Who wrote a journal, from the first line of it; None: that is not known."""
    pid, start = first.get("owner", (0, 0))
    return (pid, start) if pid else None


def _needed(found: Mapping[str, Any]) -> tuple[str, ...]:
    if "did" in found:
        return _NEEDED.get(found["did"], ())
    return () if "state" in found or "end" in found else ("role", "pid", "other_host")
