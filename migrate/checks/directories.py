"""Open directories of which some names have been read: how far is a number that belongs to one file system. Pure.

CRIU sets the same number there. On another file system it is another place: names would be left out, or come
twice, and nobody would know. Source: man readdir(3), d_off; CRIU's criu/files-reg.c open_path(), do_open_reg().
"""

from __future__ import annotations

from collections.abc import Iterator

from migrate.checks.file_differences import same_place
from migrate.checks.files import pairs
from migrate.checks.subject import ORIGIN, Subject
from migrate.errors import Reason
from migrate.pb.session_pb2 import File


def none_read_in_part(subject: Subject) -> Iterator[Reason]:
    """Nothing is being read of a directory but of one that both hosts see."""
    for here, there in pairs(subject.process, subject.destination):
        if (reason := read_in_part(here, shared=same_place(here, there))) is not None:
            yield reason


def read_in_part(here: File, *, shared: bool) -> Reason | None:
    """Why the process cannot read on in the directory there. At its end neither: it has not been told that yet.

    :param shared: both hosts see one and the same.
    """
    if shared or not here.read_in_part:
        return None
    text = (
        f"{here.path}, a directory of which the process has read some names, is another one there: reading on it"
        " would miss names, or get some twice"
    )
    remedy = (
        "Try again when it has closed it, or has gone back to its beginning (rewinddir); or put the directory on"
        " storage that both hosts share."
    )
    return Reason("directory-read", ORIGIN, text, remedy)
