"""The lab's one error. It knows nothing of migrations, so it is not part of their taxonomy."""

import contextlib
import subprocess
from collections.abc import Iterator


class LabError(Exception):
    """The lab cannot do what was asked; the message says what to do instead."""


@contextlib.contextmanager
def bringing_up(name: str) -> Iterator[None]:
    """A ``with`` block in which lab *name* is brought up; what the system refuses is an error of the lab's."""
    try:
        yield
    except (OSError, subprocess.SubprocessError) as error:
        raise LabError(f"lab {name!r} cannot be brought up: {error}") from error
