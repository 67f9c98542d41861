"""What ``--copy-files`` leaves behind, and what ``--copy-tree`` may take. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from migrate.checks.file_differences import difference, same_place
from migrate.checks.files import copied, pairs, within
from migrate.checks.subject import DESTINATION, ORIGIN, Subject, names
from migrate.errors import Reason
from migrate.pb.session_pb2 import File

#: Directories that belong to a host as a whole: another host's must never take their place.
OF_THE_HOST = re.compile(
    r"/|/(root|home|tmp|opt|mnt|media|var|run)|/home/[^/]+|/var/(lib|log|run|tmp|cache|spool)"
    r"|/(etc|usr|bin|sbin|lib\w*|boot|dev|proc|sys|run/user|run/migrate|var/log/migrate)(/.*)?"
)


def nothing_left_behind(subject: Subject) -> Iterator[Reason]:
    """Beside a file that the program writes, and that is copied, there is nothing that it will want later."""
    if not subject.along.copy_files:
        return
    answers = {one.path: one for one in subject.destination.files if one.use == File.NEIGHBOUR}
    shared = _shared(subject)
    left: defaultdict[str, list[str]] = defaultdict(list)
    for here in subject.process.files:
        if here.use != File.NEIGHBOUR or within(here.path, subject.along.copy_trees):
            continue
        there = answers.get(here.path, File(path=here.path, use=here.use))
        folder = _beside(here.path, subject)
        if folder and folder not in shared and difference(here, there, copying=True) is not None:
            left[folder].append(here.path.removeprefix(f"{folder}/"))
    for folder, paths in left.items():
        text = (
            f"--copy-files copies only what the process has open, and in {folder}, where it writes, are also"
            f" {names(paths)}, which the destination has not, or differently"
        )
        remedy = (
            f"Pass --copy-tree {folder}, which copies all of it, or put it on storage that both hosts share."
        )
        yield Reason("files-beside", DESTINATION, text, remedy)


def no_directory_emptied(subject: Subject) -> Iterator[Reason]:
    """Of a missing directory ``--copy-files`` makes only itself: the process would find nothing in it."""
    for here in copied(subject):
        if here.below:
            yield emptied(here.path, here.below)


def emptied(path: str, below: Iterable[str]) -> Reason:
    """What is said of the directory *path*, which is missing there and has *below* in it here."""
    return Reason(
        "directory-emptied",
        DESTINATION,
        f"--copy-files makes the directory {path}, which the process uses, without {names(below)} in it, which the"
        " process may want and does not have open",
        f"Pass --copy-tree {path}, which copies all of it, or make it there yourself with what is needed of it.",
    )


def _beside(path: str, subject: Subject) -> str:
    """The directory of a written file that *path* is in or below; the outermost."""
    folders = {str(Path(one.path).parent) for one in subject.process.files if one.written and one.regular}
    return min((folder for folder in folders if path.startswith(f"{folder}/")), key=len, default="")


def _shared(subject: Subject) -> set[str]:
    found = pairs(subject.process, subject.destination)
    return {str(Path(here.path).parent) for here, there in found if here.written and same_place(here, there)}


def trees_sound(subject: Subject) -> Iterator[Reason]:
    """A directory that is copied as a whole takes the place of the one there."""
    there = {one.path: one for one in subject.destination.files if one.use == File.COPIED_TREE}
    for here in (one for one in subject.process.files if one.use == File.COPIED_TREE):
        if OF_THE_HOST.fullmatch(here.path):
            text = f"--copy-tree {here.path}: the destination's own would be replaced by it"
            yield Reason("tree-of-host", DESTINATION, text, "Name the program's own directory, below it.")
        elif not here.directory or here.real_path:
            text = f"--copy-tree {here.path} is no directory" + (
                f" but {here.real_path}" if here.real_path else ""
            )
            yield Reason("no-tree", ORIGIN, text, "Name the directory itself, without symbolic links.")
        elif (its := there.get(here.path)) is not None:
            yield from _tree_there(here, its)


def _tree_there(here: File, there: File) -> Iterator[Reason]:
    if there.real_path:
        text = f"{here.path} leads to {there.real_path} there, by a symbolic link, and none is followed"
        yield Reason("link-in-path", DESTINATION, text, "Put a directory there instead of the link.")
    elif there.exists and not there.directory:
        text = f"{here.path} is no directory there"
        yield Reason("other-file", DESTINATION, text, "Remove what is there.")
    elif same_place(here, there):
        text = f"--copy-tree {here.path} is on storage that both hosts share"
        yield Reason("tree-shared", DESTINATION, text, "Leave the option out.")
    elif there.mounts:
        text = f"{here.path} is to be replaced, and it or something in it is mounted there: {names(there.mounts)}"
        remedy = (
            "Unmount it there, or end that container; or copy the directory yourself, without the option."
        )
        yield Reason("tree-mounted", DESTINATION, text, remedy)
    elif there.writers:
        text = f"{here.path} is to be replaced, and is used there by {names(there.writers)}"
        yield Reason("file-in-use", DESTINATION, text, "End that program there.")
