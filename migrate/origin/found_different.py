"""Why a frozen process goes no further: what is found about its files that was not so when they were compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable

from migrate.checks import beside, directories, file_differences, writable
from migrate.checks import files as checks_files
from migrate.checks.subject import names
from migrate.errors import MigrateError, Reason
from migrate.inventory import inside
from migrate.pb.session_pb2 import File


def _require_no(reason: Reason | None) -> None:
    if reason is not None:
        raise MigrateError(f"{reason.text} (not so when it was checked)", hint=reason.remedy)


def require_writable(one: File, there: File, *, made: bool) -> None:
    """What the process writes can be written there. :raises MigrateError: it cannot."""
    _require_no(writable.unwritable(one, there, made=made))


def require_names_free(pairs: Iterable[tuple[File, File]]) -> None:
    """No deleted directory of the process has a namesake there. :raises MigrateError: one has."""
    for one, there in pairs:
        _require_no(checks_files.deleted_name_taken(one, there))


def require_none_read_in_part(
    found: Iterable[File], shared: Collection[str], compare: Callable[[list[File]], list[tuple[File, File]]]
) -> None:
    """No directory of *found* has been read in part that is another one there. :raises MigrateError: one has."""
    reading = [one for one in found if one.read_in_part and one.path not in shared]
    for one, there in compare(reading):
        _require_no(directories.read_in_part(one, shared=file_differences.same_place(one, there)))


def require_no_lock(found: Iterable[File], shared: Collection[str]) -> None:
    """None of *found* that both hosts see has a lock that it cannot have twice. :raises MigrateError: one has."""
    for one in found:
        _require_no(checks_files.locked_here(one, shared=one.path in shared))


def require_written_alone(found: Iterable[File], shared: Collection[str]) -> None:
    """Nobody who stays writes one of *found*, too, but what both hosts see. :raises MigrateError: one does."""
    for one in found:
        if one.writers and one.path not in shared:
            raise MigrateError(
                f"{one.path} is written by {names(one.writers)}, too, which stays here (not seen when it was"
                " checked)",
                hint="End that process first, or name a parent of both, which moves both.",
            )


def require_none_beside(paths: Iterable[str], what: str) -> None:
    """Nothing has changed beside what it writes. :raises MigrateError: *paths* have, and how: *what*."""
    if others := sorted(paths):
        raise MigrateError(
            f"{names(others)} {what} since the check, beside files that the process writes, and is not copied",
            hint=f"Pass --copy-tree {os.path.dirname(others[0])}, which copies all of it, or try again.",  # noqa: PTH120
        )


def require_none_emptied(carried: Collection[File], made: Collection[str]) -> None:
    """None of the directories *made* there has something in it here that is not *carried*.

    :param made: paths, of those carried. :raises MigrateError: one has.
    """
    paths = {one.path for one in carried}
    for one in carried:
        if one.directory and one.path in made and (below := inside.of(one.path, paths)):
            _require_no(beside.emptied(one.path, below))


def gone(path: str) -> MigrateError:
    """The error that says so of a file that the destination had before."""
    return MigrateError(
        f"{path} was removed, or got another name, since it was compared",
        hint="Try again; if it has to go there, too, remove it there before.",
    )


def changed(problems: list[str]) -> MigrateError:
    """The error that names the first of *problems*."""
    more = f" and {len(problems) - 3} more of this kind" if len(problems) > 3 else ""
    return MigrateError(
        "; ".join(problems[:3]) + more,
        hint="Pass --copy-files, which copies what the process writes, or put these files on storage that both"
        " hosts share.",
        details=problems,
    )
