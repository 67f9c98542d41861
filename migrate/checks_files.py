"""Whether the destination has the files of the process, and the same ones. Pure.

CRIU opens every file again by its path. It refuses one of another size or build-id (criu/files-reg.c
validate_file()), but only after the process has been frozen.
"""

from __future__ import annotations

from collections.abc import Iterator

from migrate.checks_subject import DESTINATION, Subject, size
from migrate.errors import Reason
from migrate.pb.session_pb2 import File, HostInventory, ProcessInventory

_CODE = frozenset({File.MAPPED, File.EXECUTABLE})
_DIGITS = 12


def files_there(subject: Subject) -> Iterator[Reason]:
    """Compare each file of the origin with what the destination has at its path."""
    told: set[str] = set()
    for here, there in _pairs(subject.process, subject.destination):
        reason = _missing(here) if not there.exists else _different(here, there)
        # A file that is mapped is often open and executed as well; one reason is enough.
        if reason is None or here.path in told:
            continue
        if not (subject.options.copy_files and can_copy(here, there)):
            told.add(here.path)
            yield reason


def files_to_copy(process: ProcessInventory, destination: HostInventory) -> list[File]:
    """Return the origin's files that have to be copied, each path once.

    Those that are missing there, and those that the process writes and that differ. A program or a library
    that differs there is never replaced: others run it. Of a missing directory only itself is made.
    """
    found: dict[str, File] = {}
    for here, there in _pairs(process, destination):
        differs = not there.exists or _different(here, there) is not None
        if differs and can_copy(here, there):
            found.setdefault(here.path, here)
    # Directories first, and those above others before them: files are put into them.
    return sorted(found.values(), key=lambda one: (not one.directory, len(one.path)))


def can_copy(here: File, there: File) -> bool:
    """Whether copying *here* over *there* does what the user wants with ``--copy-files``."""
    if here.directory:
        return not there.exists and here.use != File.ROOT_DIRECTORY
    return here.regular and (not there.exists or (there.regular and here.written))


def _pairs(process: ProcessInventory, destination: HostInventory) -> Iterator[tuple[File, File]]:
    answers = {(one.path, one.use): one for one in destination.files}
    for here in process.files:
        yield here, answers.get((here.path, here.use), File(path=here.path, use=here.use))


def _missing(here: File) -> Reason:
    if here.use == File.WORKING_DIRECTORY:
        text = f"the working directory {here.path} does not exist"
        return Reason("no-working-directory", DESTINATION, text, _make(here))
    if here.directory:
        text = f"the directory {here.path}, which the process uses, does not exist"
        return Reason("no-directory", DESTINATION, text, _make(here))
    if here.use in _CODE:
        text = f"{here.path}, which the process runs or has mapped, does not exist"
        remedy = f"Install the package that `dpkg -S {here.path}` names at the origin, or pass --copy-files."
        return Reason("no-file", DESTINATION, text, remedy)
    text = f"{here.path}, which the process has open, does not exist"
    remedy = "Pass --copy-files, or copy it there." if here.regular else "Create the same there."
    return Reason("no-file", DESTINATION, text, remedy)


def _make(here: File) -> str:
    remedy = f"Make it there: mkdir -p {here.path}"
    return (
        remedy
        if here.use == File.ROOT_DIRECTORY
        else f"{remedy}; or pass --copy-files, which makes it empty."
    )


def _different(here: File, there: File) -> Reason | None:
    if (here.directory, here.regular) != (there.directory, there.regular):
        text = f"{here.path} is {_kind(there)} there and {_kind(here)} at the origin"
        return Reason("other-file", DESTINATION, text, "Put the same there as at the origin.")
    if not here.regular:
        return None
    if here.build_id and here.build_id != there.build_id:
        text = (
            f"{here.path} is another build there (build-id {_id(there)}) than the process runs ({_id(here)})"
        )
        return Reason("other-build", DESTINATION, text, _same_package(here))
    if here.size_bytes == there.size_bytes or here.append_only or here.build_id:
        return None
    text = f"{here.path} has {size(there.size_bytes)} there and {size(here.size_bytes)} at the origin"
    if size(there.size_bytes) == size(here.size_bytes):
        text = f"{here.path} has {there.size_bytes} bytes there and {here.size_bytes} at the origin"
    remedy = _same_package(here)
    if here.written:
        remedy = "Pass --copy-files, which replaces it, or put it on storage that both hosts share."
    return Reason("other-file", DESTINATION, text, remedy)


def _kind(file: File) -> str:
    if file.directory:
        return "a directory"
    return "a file" if file.regular else "a special file"


def _id(file: File) -> str:
    return file.build_id.hex()[:_DIGITS] or "none"


def _same_package(here: File) -> str:
    if here.use in _CODE:
        return f"Install the same version there of the package that `dpkg -S {here.path}` names."
    return f"Copy it there: rsync -a {here.path} HOST:{here.path}"
