"""How a file there differs from the one here, and what to do about it. Pure."""

from __future__ import annotations

import stat

from migrate.checks.subject import DESTINATION, names
from migrate.errors import Reason
from migrate.pb.session_pb2 import File
from migrate.units import size

_CODE = frozenset({File.MAPPED, File.EXECUTABLE})
#: Nobody reads these: they have to be there.
_ONLY_THERE = frozenset({File.SOCKET_DIRECTORY, File.WATCHED})
#: What is in these the kernel makes at the moment in which they are read, or nobody reads them.
_NO_CONTENT = _ONLY_THERE | {File.KERNEL_MADE}
_DIGITS = 12
_SET_ID = stat.S_ISUID | stat.S_ISGID
_SHARED = "put it on storage that both hosts share"


def needs_content(here: File, there: File, *, copying: bool) -> bool:
    """Whether only the content tells if *here* and *there* are the same."""
    if (
        not (here.regular and there.regular)
        or here.build_id
        or here.use in _NO_CONTENT
        or same_place(here, there)
    ):
        return False
    return here.size_bytes == there.size_bytes and (copying or not here.append_only)


def same_place(here: File, there: File) -> bool:
    """Whether both hosts see one and the same file."""
    return bool(here.storage) and here.storage == there.storage


def in_the_way(here: File, there: File) -> Reason | None:
    """What speaks against putting a copy there."""
    if there.real_path:
        text = f"{here.path} leads to {there.real_path} there, by a symbolic link, and none is followed"
        remedy = "Put a directory there instead of the link, or put the file in its place yourself."
        return Reason("link-in-path", DESTINATION, text, remedy)
    if here.regular and here.mode & _SET_ID:
        text = f"{here.path} is a program that runs with its owner's rights, and it is not copied"
        return Reason("set-id-file", DESTINATION, text, _same_package(here))
    if there.writers:
        text = f"{here.path} is to be replaced, and is open for writing there by {names(there.writers)}"
        return Reason(
            "file-in-use",
            DESTINATION,
            text,
            "End that program there, or let one of the two use another file.",
        )
    return None


def _missing(here: File) -> Reason:
    if here.use == File.WORKING_DIRECTORY:
        text = f"the working directory {here.path} does not exist"
        return Reason("no-working-directory", DESTINATION, text, _make(here))
    if here.use == File.SOCKET_DIRECTORY:
        text = f"the directory {here.path}, in which the process has a unix socket, does not exist"
        return Reason("no-directory", DESTINATION, text, _make(here))
    if here.use == File.KERNEL_MADE:
        text = f"{here.path}, which the process has open and the kernel makes, does not exist"
        remedy = "Load the module there that makes it, or choose a host with such a kernel and device."
        return Reason("no-kernel-file", DESTINATION, text, remedy)
    if here.use == File.WATCHED:
        text = f"{here.path}, which the process watches for changes, does not exist"
        remedy = _make(here) if here.directory else "Pass --copy-files, or copy it there."
        return Reason("no-watched-file", DESTINATION, text, remedy)
    if here.directory:
        text = f"the directory {here.path}, which the process uses, does not exist"
        return Reason("no-directory", DESTINATION, text, _make(here))
    if here.use in _CODE and not here.written:
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


def difference(here: File, there: File, *, copying: bool) -> Reason | None:
    """Why what is *there* is not the file that the process has *here*; None: it is.

    :param copying: the content of a log counts as well, which else goes on behind what is there.
    """
    if not there.exists:
        return _missing(here)
    if (here.directory, here.regular) != (there.directory, there.regular):
        text = f"{here.path} is {_kind(there)} there and {_kind(here)} at the origin"
        return Reason("other-file", DESTINATION, text, "Put the same there as at the origin.")
    if here.use in _ONLY_THERE:
        return None
    if here.regular and not same_place(here, there):
        reason = _other_content(here, there, copying)
        if reason is not None:
            return reason
    return _other_mode(here, there)


def _other_content(here: File, there: File, copying: bool) -> Reason | None:
    if here.build_id:
        if here.build_id == there.build_id:
            return None
        text = (
            f"{here.path} is another build there (build-id {_id(there)}) than the process runs ({_id(here)})"
        )
        return Reason("other-build", DESTINATION, text, _same_package(here))
    if here.append_only and not copying:
        return None
    remedy = f"Pass --copy-files, which replaces it, or {_SHARED}." if here.written else _same_package(here)
    if here.size_bytes != there.size_bytes:
        text = f"{here.path} has {size(there.size_bytes)} there and {size(here.size_bytes)} at the origin"
        if size(there.size_bytes) == size(here.size_bytes):
            text = f"{here.path} has {there.size_bytes} bytes there and {here.size_bytes} at the origin"
        return Reason("other-file", DESTINATION, text, remedy)
    if here.content != there.content and here.use not in _NO_CONTENT:
        text = f"{here.path} has other content there than at the origin, and the same size"
        return Reason("other-file", DESTINATION, text, remedy)
    return None


def _other_mode(here: File, there: File) -> Reason | None:
    """CRIU compares the mode of whatever has a path."""
    if not here.mode or not there.mode or stat.S_IMODE(here.mode) == stat.S_IMODE(there.mode):
        return None
    mine, its = (f"{stat.S_IMODE(one.mode):04o}" for one in (here, there))
    text = f"{here.path} has the mode {its} there and {mine} at the origin"
    return Reason("other-mode", DESTINATION, text, f"Make them the same: chmod {mine} {here.path}")


def _kind(file: File) -> str:
    if file.directory:
        return "a directory"
    return "a file" if file.regular else "a special file"


def _id(file: File) -> str:
    return file.build_id.hex()[:_DIGITS] or "none"


def _same_package(here: File) -> str:
    if here.use in _CODE:
        return f"Install the same version there of the package that `dpkg -S {here.path}` names."
    # What grows has another size each time it is copied by hand; a program with its owner's rights is not copied.
    more = "If somebody goes on writing it here, remove the one there instead, and pass --copy-files."
    remedy = f"Copy it there: `rsync -a {here.path} HOST:{here.path}`."
    return remedy if here.mode & _SET_ID else f"{remedy} {more}"
