"""An entry of a journal: what was about to be done, with all that is needed to undo it.

Each kind is a class, beside what it undoes; :data:`migrate.recovery.entries.KINDS` has all of them. Pure, but for
what :meth:`Entry.undo` of a kind does.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from migrate.errors import MigrateError
from migrate.journal import lines


@dataclass(frozen=True)
class Entry(abc.ABC):
    """What one line of a journal says. The fields of a kind are the keys of its line, in the same order.

    :cvar word: names the kind in the line. It and the fields stay as they are: who undoes may be another version.
    """

    word: ClassVar[str]

    @abc.abstractmethod
    def undo(self) -> str:
        """Undo it, and say what was undone, in a sentence.

        It may have been undone before, be half done or not begun, and this may be another process than the one
        that did it.

        :raises MigrateError, TcpcpError, OSError: it could not be undone.
        """

    @property
    def kind(self) -> str:
        """The word of its line."""
        return self.word

    def line(self) -> dict[str, Any]:
        """The line, as JSON types and tuples."""
        return {"did": self.kind, **vars(self)}

    @classmethod
    def read(cls, line: Mapping[str, Any]) -> Self:
        """The entry of a line as JSON gives it back. What another version may have written beside is left out.

        :raises ValueError: something is missing, or of another type than its field.
        """
        types = _types(cls)
        fields = {name: _unchangeable(line[name]) for name in types if name in line}
        for name in (name for name, value in fields.items() if not _fits(value, types[name])):
            raise ValueError(f"{name} makes no sense")
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(f"something of it is missing: {error}") from error


def _unchangeable(value: Any) -> Any:
    return tuple(map(_unchangeable, value)) if isinstance(value, list) else value


@functools.cache
def _types(cls: type[Entry]) -> Mapping[str, Any]:
    """Field -> type, as it is annotated."""
    found = get_type_hints(cls)
    return {one.name: found[one.name] for one in dataclasses.fields(cls)}


def _fits(value: Any, wanted: Any) -> bool:
    """Whether *value*, of JSON types and tuples, is of the type *wanted*."""
    origin, parts = get_origin(wanted), get_args(wanted)
    if origin is tuple:
        if not isinstance(value, tuple) or parts[-1] is not ... and len(value) != len(parts):
            return False
        return all(map(_fits, value, itertools.repeat(parts[0]) if parts[-1] is ... else parts))
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in parts)
    if origin is Literal:
        return any(value is one for one in parts)
    if origin is not None:
        return isinstance(value, origin)
    return {str: lines.text, int: lines.number}[wanted](value)


@dataclass(frozen=True)
class Unreadable(Entry):
    """An entry of a kind that nobody here knows, or that lacks what its kind has: nothing can be done with it."""

    name: str
    why: str

    @property
    def kind(self) -> str:
        """See :class:`Entry`."""
        return self.name

    def undo(self) -> str:
        """See :class:`Entry`."""
        raise MigrateError(f"this version cannot undo it: {self.why}")
