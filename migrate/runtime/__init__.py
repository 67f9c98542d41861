"""What keeps a tree on its host beside the kernel: nobody, systemd, or an engine of containers. One module each.

The origin finds out which it is and tells the destination its name; who undoes finds it in the journal. One more is
a module, and a line of :func:`_all`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from migrate.errors import MigrateError
from migrate.pb.session_pb2 import ProcessInventory
from migrate.processes.identity import Identity

#: What a message or a journal of a version before means, which names none.
BARE = "bare"
#: Those whose trees have the host's own files and numbers, as no container has.
OF_HOST = ("", BARE, "systemd")


class Runtime(Protocol):
    """One way, on either host."""

    @property
    def name(self) -> str:
        """As in messages and journals."""

    def keeps(self, pid: int) -> bool:
        """On the origin: whether the tree whose root is *pid* is one of its."""

    def inventory(self, pid: int) -> ProcessInventory:
        """On the origin: what the tree holds, and what speaks against moving it. Nothing is touched.

        :raises MigrateError: it cannot be looked at.
        """

    def dump_options(self, opts: Any, *, shell_job: bool) -> None:
        """On the origin: fill in, of CRIU's criu_opts, what is special to it.

        :param shell_job: the user said that the tree may belong to the session of a shell.
        """

    def restore_options(self, opts: Any, *, shell_job: bool) -> None:
        """On the destination, likewise."""

    def give_back(self, root: int) -> list[str]:
        """On the destination, when the tree runs: who keeps such trees there has it from now on.

        :return: sentences: what is not as it should be. Nothing can be undone any more.
        """

    def undo(self, built: Iterable[Identity], mark: str, images: str) -> None:
        """On the destination: end what was restored, however much of it there is, and what was made for it.

        It may run twice, and in another process.

        :param built, mark, images: as the journal's entry ``tree`` has them, see
            :func:`migrate.processes.made_here.processes_of`.
        :raises MigrateError: something is left.
        """


def of(pid: int) -> Runtime:
    """That which keeps the tree whose root is *pid*."""
    return next(one for one in _all() if one.keeps(pid))


def find(name: str) -> Runtime:
    """The one of that name; "" is a bare process.

    :raises MigrateError: this version knows none of it.
    """
    for one in _all():
        if one.name == (name or BARE):
            return one
    hint = "Install the same version on both hosts."
    raise MigrateError(f"no runtime is called {name}", hint=hint)


def _all() -> list[Runtime]:
    """All of them; the first that keeps a tree has it, and a bare process is what is left."""
    from migrate.processes.oci import RUNTIMES
    from migrate.runtime.bare import Bare
    from migrate.runtime.oci import Oci
    from migrate.runtime.podman import Podman
    from migrate.runtime.unit import OfUnit

    return [*map(Oci, RUNTIMES), Podman(), OfUnit(), Bare()]
