"""Whether the destination has the files of the process, and the same ones. Pure.

CRIU opens every file again by its path. It refuses one of another size, mode or build-id (criu/files-reg.c
validate_file()), but only after the process has been frozen; and it takes any other content for the same file.
So a file is the same only if both hosts see it on one storage, if it is the same build of a program, or if its
content is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from migrate.checks.file_differences import difference, in_the_way, needs_content, same_place
from migrate.checks.subject import DESTINATION, ORIGIN, Subject, names
from migrate.errors import Reason
from migrate.inventory.described import NOT_OPENED
from migrate.pb.session_pb2 import File, HostInventory, ProcessInventory
from migrate.units import size


def files_there(subject: Subject) -> Iterator[Reason]:
    """Compare each file of the origin with what the destination has at its path."""
    told: set[str] = set()
    copying = subject.along.copy_files
    for here, there in pairs(subject.process, subject.destination):
        if here.path in told or within(here.path, subject.along.copy_trees):
            continue
        reason = difference(here, there, copying=copying)
        if reason is not None and copying and can_copy(here, there):
            reason = in_the_way(here, there)
        # A file that is mapped is often open and executed as well; one reason is enough.
        if reason is not None:
            told.add(here.path)
            yield reason


def written_here_alone(subject: Subject) -> Iterator[Reason]:
    """Nobody who stays writes a file, too, that the process reads and writes: it would be two files."""
    for path, writers in _written_by_others(subject).items():
        text = f"{path}, which the process reads and writes, is written by {names(writers)} too, which stays here"
        remedy = (
            "End that process first, or name a parent of both, which moves both; or put the file on storage that"
            " both hosts share."
        )
        yield Reason("file-outside", ORIGIN, text, remedy)


def _written_by_others(subject: Subject) -> dict[str, list[str]]:
    """Each path once: a file may be open and mapped."""
    return {
        here.path: list(here.writers)
        for here, there in pairs(subject.process, subject.destination)
        if here.writers and not same_place(here, there)
    }


def locks_free(subject: Subject) -> Iterator[Reason]:
    """Nobody there holds a lock that the process has here: CRIU would wait for it, for ever."""
    for here, there in pairs(subject.process, subject.destination):
        if there.lockers:
            text = f"{here.path}, on which the process has a lock, is locked there by {names(there.lockers)}"
            remedy = "End that program there, or let the process give its lock back before the move."
            yield Reason("lock-taken", DESTINATION, text, remedy)
        elif (reason := locked_here(here, shared=same_place(here, there))) is not None:
            yield reason


def locked_here(here: File, *, shared: bool) -> Reason | None:
    """Why nobody can have the lock there that the process has: it has it itself, here, until it has been moved.

    :param shared: both hosts see one and the same file, and its locks.
    """
    if not shared or not any(" WRITE " in lock for lock in here.locks):
        return None
    text = f"{here.path}, on which the process has a write lock, is on storage that both hosts share"
    remedy = (
        "Let the process give the lock back before the move (a database: end its transaction); it cannot be taken"
        " there while the process waits here with it."
    )
    return Reason("lock-on-shared", DESTINATION, text, remedy)


def databases(subject: Subject) -> Iterator[Reason]:
    """Programs that know their file by its inode do not write to a copy of it."""
    for here, there in pairs(subject.process, subject.destination):
        if not here.format or not here.written or same_place(here, there) or here.use != File.OPEN:
            continue
        copying = subject.along.copy_files or bool(subject.along.copy_trees)
        if here.format == "SQLite" and there.exists and here.inode == there.inode:
            continue
        if here.format == "SQLite" or (copying and difference(here, there, copying=True) is not None):
            text = f"{here.path} is an open {here.format} database, which does not work on as a copy"
            remedy = (
                "Put it on storage that both hosts share, or let the program close it before it is moved and open"
                " it again afterwards."
            )
            yield Reason("open-database", DESTINATION, text, remedy)


def files_to_copy(
    process: ProcessInventory, destination: HostInventory, trees: Iterable[str] = ()
) -> list[File]:
    """Return the origin's files that have to be copied, each path once, without what is in *trees*.

    Those that are missing there, and those that the process writes and that differ. A program or a library
    that differs there is never replaced: others run it. Of a missing directory only itself is made.
    """
    found: dict[str, File] = {}
    for here, there in pairs(process, destination):
        differs = difference(here, there, copying=True) is not None
        if differs and can_copy(here, there) and not within(here.path, trees):
            found.setdefault(here.path, here)
    # Directories first, and those above others before them: files are put into them.
    return sorted(found.values(), key=lambda one: (not one.directory, len(one.path)))


def copied(subject: Subject) -> list[File]:
    """Those that --copy-files copies, if it is given."""
    if not subject.along.copy_files:
        return []
    return files_to_copy(subject.process, subject.destination, subject.along.copy_trees)


def files_to_compare(process: ProcessInventory, destination: HostInventory, *, copying: bool) -> list[File]:
    """Return those of which only the content tells whether they are the same, each path once."""
    found: dict[str, File] = {}
    for here, there in pairs(process, destination):
        if needs_content(here, there, copying=copying):
            found.setdefault(here.path, here)
    return list(found.values())


def can_copy(here: File, there: File) -> bool:
    """Whether copying *here* over *there* does what the user wants with ``--copy-files``."""
    if here.use == File.KERNEL_MADE:
        return False
    if here.directory:
        return not there.exists and here.use != File.ROOT_DIRECTORY
    return here.regular and (not there.exists or (there.regular and here.written))


def within(path: str, trees: Iterable[str]) -> bool:
    """Whether *path* is one of *trees*, or in one of them."""
    return any(path == tree or path.startswith(f"{tree}/") for tree in trees)


def pairs(process: ProcessInventory, destination: HostInventory) -> Iterator[tuple[File, File]]:
    """Each file that the process uses, with what the destination has at its path."""
    answers = {(one.path, one.use): one for one in destination.files}
    for here in process.files:
        if here.use not in NOT_OPENED:
            yield here, answers.get((here.path, here.use), File(path=here.path, use=here.use))


def shared_beside(process: ProcessInventory, destination: HostInventory) -> set[str]:
    """Return the paths of those files beside open ones of which both hosts see one and the same."""
    there = {one.path: one for one in destination.files if one.use == File.NEIGHBOUR}
    beside = [one for one in process.files if one.use == File.NEIGHBOUR]
    return {one.path for one in beside if one.path in there and same_place(one, there[one.path])}


def asked_for_a_place(subject: Subject) -> Iterator[tuple[File, File]]:
    """What is made there beside what is at its path, with what the destination says: trees, and deleted files."""
    there = {(one.path, one.use): one for one in subject.destination.files}
    for here in subject.process.files:
        if here.use in (File.COPIED_TREE, File.DELETED) and (here.path, here.use) in there:
            yield here, there[here.path, here.use]


def deleted_names_free(subject: Subject) -> Iterator[Reason]:
    """No deleted directory has a name that is taken there. A tree that is copied has what it has here."""
    made = [one.path for one in copied(subject)]
    for here, there in asked_for_a_place(subject):
        taken = here if within(here.path, subject.along.copy_trees) else there
        reason = deleted_name_taken(here, taken)
        if reason is None and any(within(path, [here.path]) for path in made):
            reason = _made_by_us(here)
        if reason is not None:
            yield reason


def deleted_name_taken(here: File, there: File) -> Reason | None:
    """CRIU makes a deleted directory under its old name, dresses it and removes it: another one, if there is one.

    Source: criu/files-reg.c create_ghost_dentry(), ghost_apply_metadata().
    """
    if here.use != File.DELETED or not here.directory or not there.exists:
        return None
    text = f"{here.path}, a deleted directory that the process uses, has a namesake there, which would be removed"
    remedy = "Rename that one there meanwhile; or restart the program, or let it leave the deleted directory."
    return Reason("deleted-name-taken", DESTINATION, text, remedy)


def _made_by_us(here: File) -> Reason | None:
    """Why what is copied is in the way of a deleted directory: the process has made another one of that name."""
    if not here.directory:
        return None
    text = (
        f"{here.path}, a deleted directory that the process uses, has a namesake by now, which --copy-files would"
        " make there, and which would be removed"
    )
    remedy = "Let the program leave the deleted directory, or restart it."
    return Reason("deleted-name-taken", DESTINATION, text, remedy)


def appended(subject: Subject) -> Iterator[str]:
    """Notes about logs that go on in another file than they began in."""
    for here, there in pairs(subject.process, subject.destination):
        if (
            here.append_only
            and there.exists
            and not subject.along.copy_files
            and not within(here.path, subject.along.copy_trees)
            and not same_place(here, there)
        ):
            yield (
                f"{here.path} is appended to: it goes on behind the {size(there.size_bytes)} that are there, and"
                f" the {size(here.size_bytes)} from before stay here"
            )
