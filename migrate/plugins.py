"""What other packages bring for a seam of this program, found by its name: entry points, one group a seam.

Our own ways are not looked for here: they come first under their names, and no package can put itself before them.
Source: https://packaging.python.org/en/latest/specifications/entry-points/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from migrate.errors import MigrateError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints


def names(group: str) -> list[str]:
    """The names that the installed packages have in *group*."""
    return sorted({one.name for one in _entry_points(group)})


def load(group: str, name: str, own: tuple[str, ...], error: type[MigrateError]) -> Any:
    """What a package has under *name* in *group*.

    :param own: the names that need no package, for the message.
    :raises MigrateError: an *error*: nobody has it, or it cannot be imported.
    """
    found = [one for one in _entry_points(group) if one.name == name]
    if not found:
        known = ", ".join([*own, *names(group)])
        hint = f"Known on this host: {known}. A package that brings another one is needed on both hosts."
        raise error(f"nothing that is installed here is called {name} among {group}", hint=hint)
    point = found[0]
    try:
        return point.load()
    except Exception as problem:  # somebody else's code: whatever it raises, it cannot be used
        text = f"{name} of {group} cannot be loaded from {point.value}: {type(problem).__name__}: {problem}"
        raise error(text, hint="Install the package again that brings it, or remove it.") from problem


def _entry_points(group: str) -> EntryPoints:
    from importlib import metadata  # here, since nobody who wants ways of our own needs it

    return metadata.entry_points(group=group)
