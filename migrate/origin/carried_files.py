"""The files of one migration, on the origin: compared before the freeze, copied, and looked at again in it.

Before the freeze all that takes long: every file whose content decides is read once on both hosts, and what has to
be copied is. In the freeze only what may have been written since is looked at again, and what was opened since.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from migrate.checks import file_differences
from migrate.checks import files as checks_files
from migrate.errors import MigrateError
from migrate.files import copies
from migrate.files import trees as tree_copy
from migrate.files.content import Digests
from migrate.inventory import neighbours
from migrate.inventory.open_files import Again
from migrate.link.payloads import Piece
from migrate.origin import found_different, looked_anew
from migrate.origin.as_dumped import AsDumped
from migrate.pb.session_pb2 import Compare, Compared, File, HostInventory, ProcessInventory

Ask = Callable[[Compare, Callable[[], None]], Compared]


class CarriedFiles:
    """What both hosts have of the tree's files.

    :param ask: sends a question to the destination, calls its second argument, and returns the answer.
    :param send: sends a piece of a file.
    :param copying: ``--copy-files``.
    :param trees: ``--copy-tree``: directories that are copied as a whole.
    :param checkpoint, tell: as of :class:`migrate.files.content.Digests`.
    :ivar renamed: after :meth:`settle`: paths that are gone, of files that have another name: that one.
    """

    def __init__(
        self,
        ask: Ask,
        send: Callable[[Piece], None],
        *,
        copying: bool,
        trees: Iterable[str] = (),
        checkpoint: Callable[[], None] = lambda: None,
        tell: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._ask, self._send, self._copying = ask, send, copying
        self._digests = Digests(checkpoint, tell)
        self._trees = [tree_copy.CopiedTree(path, self._digests) for path in trees]
        self._paths = tuple(tree.path for tree in self._trees)
        self.renamed: dict[str, str] = {}
        self._known: dict[str, File] = {}
        self._shared: set[str] = set()
        self._logs: set[str] = set()
        self._sent_at: dict[str, int] = {}
        self._beside: set[str] = set()

    # --- before the freeze -------------------------------------------------------------------------------

    def compare(self, process: ProcessInventory, there: HostInventory) -> None:
        """Find out the content of files where only that decides, and write it into both inventories.

        May be called again, with what was looked at anew; only the last time counts.

        :raises MigrateError: a file cannot be read here; of one that is gone its cause is a FileNotFoundError.
        """
        # What was found out the last time may be of files that are no more.
        for known in (self._known, self._shared, self._logs):
            known.clear()
        wanted = checks_files.files_to_compare(process, there, copying=self._copying)
        beside = [one for one in process.files if one.use == File.NEIGHBOUR]
        self._beside = {one.path for one in beside}
        shared = checks_files.shared_beside(process, there)
        wanted += [one for one in beside if one.path not in shared]
        its = self._contents(wanted)
        for one in process.files:
            one.content = self._digests.known(one.path)
        for one in there.files:
            one.content = its.get(one.path, b"")
        self._remember(process, there)

    def answers(self, files: list[File]) -> list[File]:
        """What the destination has at the paths of *files*."""
        return list(self._ask(Compare(files=files), lambda: None).files) if files else []

    def _contents(self, wanted: list[File]) -> dict[str, bytes]:
        """Read *wanted* on both hosts at once; return what is over there."""
        if not wanted:
            return {}

        read = looked_anew.Reading(self._digest, wanted)
        answer = self._ask(Compare(files=wanted), read)
        read.require()
        return {one.path: one.content for one in answer.files}

    def _digest(self, one: File) -> bytes:
        try:
            return self._digests.of(one.path, mapped_shared=one.mapped_shared)
        except OSError as error:
            raise MigrateError(f"cannot read {one.path}: {error.strerror}") from error

    def _remember(self, process: ProcessInventory, there: HostInventory) -> None:
        for here, its in sorted(checks_files.pairs(process, there), key=lambda pair: _weight(pair[0])):
            self._known[here.path] = here
            # Of an open directory it matters where both read it.
            if (here.written or here.directory) and file_differences.same_place(here, its):
                self._shared.add(here.path)
            if here.append_only and its.exists and not self._copying:
                self._logs.add(here.path)
        self._shared |= checks_files.shared_beside(process, there)

    def copy(self, files: Iterable[File]) -> None:
        """Copy *files*, and the trees, to their places on the destination, while the process runs.

        :raises MigrateError: a file cannot be read here, or written there.
        """
        for tree in self._trees:
            tree.copy(self._send)
        for file in files:
            # The process may have removed it, or have given it another name: that is seen in the freeze.
            if looked_anew.gone_at(file.path, self._copy_one):
                self._sent_at[file.path] = 0
                self._send(Piece(name=file.path, removed=True))

    def arrived(self, *, awaited: bool = False) -> None:
        """Make sure that the destination has put in their places what was sent: it takes one thing after the other.

        :param awaited: it waits for that, also where there is nothing.
        :raises MigrateError: it could not.
        """
        if awaited or self._trees or self._digests.sent:
            self._ask(Compare(), lambda: None)

    def _copy_one(self, path: str, size: int | None = None) -> None:
        found = hashlib.sha256()
        before = os.stat(path)  # noqa: PTH116
        copies.send_directory_above(path, self._send)
        copies.send_file(path, self._send, self._digests.taking(found), size)
        self._digests.took(path, before, found.digest())
        self._digests.sent.add(path)
        self._sent_at[path] = before.st_ctime_ns

    # --- in the freeze -----------------------------------------------------------------------------------

    @property
    def known(self) -> Collection[str]:
        """Paths of files that were compared."""
        return self._known

    def settle(self, again: Again, images: Path) -> None:
        """The tree is frozen: see to it that the destination has its files as they are now.

        :param again: what it has open now. :param images: CRIU's.
        :raises MigrateError: it has not, and they may not be copied.
        """
        found, self.renamed = again.files, again.renamed
        # What has been opened since the check may be on storage that both share, too.
        found_different.require_none_read_in_part(found, self._shared, self._compared)
        found_different.require_written_alone(found, self._shared)
        found_different.require_no_lock(found, self._shared)
        self._require_none_beside(found)
        mapped = {one.path for one in (*found, *self._known.values()) if one.mapped_shared} | {*again.mapped}
        sizes = AsDumped([*self._known.values(), *found], images)
        for tree in self._trees:
            tree.copy_changed(self._send, mapped, sizes.size)
        now = [one for one in found if not checks_files.within(one.path, self._paths)]
        # A path is looked at once: in the use that writes, and not in the one that only watches.
        files = {one.path: one for one in sorted(now, key=_weight)}
        late = [one for one in files.values() if one.path not in self._known]
        files |= self._closed_since(files)
        for path in self._shared & files.keys():
            copies.flush(path)
        written = [one for one in files.values() if self._may_differ(one)]
        changed = [
            one for one in written if self._digests.changed(one.path, mapped_shared=one.path in mapped)
        ]
        told = {one.path for one in changed}
        changed += [one for one in files.values() if one.path not in told and self._other_since(one.path)]
        told.update(one.path for one in changed)
        self._bring(late, changed, [one for one in written if one.path not in told], sizes)
        gone = [one for one in again.deleted if one.directory]
        found_different.require_names_free(self._compared(gone))

    def _require_none_beside(self, found: list[File]) -> None:
        """What was made or changed since the check beside a file that the process writes, it may want later.

        On storage that both hosts see it has it there as it is here.
        """
        if not self._copying:
            return
        known = self._beside | self._known.keys()
        # Also beside those that it has closed since: it may have given them another name.
        now = {one.path: one for one in neighbours.of([*found, *self._known.values()], self._paths)}
        made = [one for one in now.values() if one.path not in known]
        found_different.require_none_beside(looked_anew.not_there(self._compared(made)), "was made")
        candidates = self._beside - self._shared - {one.path for one in found}
        others = looked_anew.others(candidates, now, self._digests)
        found_different.require_none_beside(
            looked_anew.not_there(self._compared(others)), "has changed or is gone"
        )

    def _closed_since(self, files: Collection[str]) -> dict[str, File]:
        """What was compared or copied, and is not open any more: it may have been written before it was closed.

        What was copied and is gone goes there, too.

        :param files: paths of those that are open now.
        :raises MigrateError: one is gone that the destination had before.
        """
        found = {}
        for path, one in self._known.items():
            sent = one.regular and path in self._sent_at
            if path in files or checks_files.within(path, self._paths) or not (self._may_differ(one) or sent):
                continue
            if os.path.isfile(path):  # noqa: PTH113
                found[path] = one
            elif sent:
                self._send(Piece(name=path, removed=True))
            else:
                raise found_different.gone(path)
        return found

    def _other_since(self, path: str) -> bool:
        """Whether something of what was copied has changed: mode, owner, times or attributes, too."""
        return path in self._sent_at and self._sent_at[path] != os.stat(path).st_ctime_ns  # noqa: PTH116

    def _may_differ(self, one: File) -> bool:
        return (
            one.regular
            and one.path in self._known
            and (one.written or self._known[one.path].written)
            and one.path not in self._shared
            and one.path not in self._logs
        )

    def _bring(self, late: list[File], changed: list[File], same: list[File], sizes: AsDumped) -> None:
        problems = []
        for one, there in self._compared(late):
            if file_differences.needs_content(one, there, copying=self._copying):
                one.content = self._digest(one)
            reason = file_differences.difference(one, there, copying=self._copying)
            if reason is not None and self._copying and checks_files.can_copy(one, there):
                changed.append(one)
            elif reason is not None:
                problems.append(f"{reason.text} (it was opened since the check)")
            found_different.require_writable(one, there, made=one in changed)
        # Of those that have not changed here: has anybody changed them over there?
        for one, there in self._compared([one for one in same if one.path not in self._digests.sent]):
            found_different.require_writable(one, there, made=False)
            if there.content != self._digests.known(one.path):
                changed.append(one)
        if not self._copying:
            problems += [f"{one.path} has changed since it was compared" for one in changed]
            changed = []
        if problems:
            raise found_different.changed(problems)
        made = self._sent_at.keys() | {one.path for one in changed}
        found_different.require_none_emptied([*self._known.values(), *late], made)
        for one in changed:
            self._copy_one(one.path, sizes.size(one.path))

    def _compared(self, files: list[File]) -> list[tuple[File, File]]:
        answers = {one.path: one for one in self.answers(files)}
        return [(one, answers.get(one.path, File(path=one.path, use=one.use))) for one in files]


def _weight(one: File) -> tuple[bool, bool]:
    return one.use != File.WATCHED, one.mapped_shared
