"""What migrate needs of a host, whatever moves: each requirement, met or what to do. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from migrate.checks.reasons import criu_works, host_problems, same_processor, two_hosts
from migrate.checks.subject import DESTINATION, ORIGIN, Subject
from migrate.errors import Reason
from migrate.pb.session_pb2 import HostInventory, ProcessInventory
from migrate.units import size


@dataclass(frozen=True, slots=True)
class Finding:
    """One requirement of a host.

    :ivar role: ``"origin"`` for this host, ``"destination"`` for the other one.
    :ivar name: of the requirement, in a word or two.
    :ivar met: whether it is.
    :ivar text: what there is, or what is wrong.
    :ivar remedy: what to do; "" where it is met.
    """

    role: str
    name: str
    met: bool
    text: str
    remedy: str = ""

    @classmethod
    def lacking(cls, role: str, name: str, reason: Reason) -> Finding:
        """One that is not met for *reason*."""
        return cls(role, name, False, reason.text, reason.remedy)


@dataclass(frozen=True, slots=True)
class _Row:
    """A requirement.

    :ivar words: a reason with one of these in its text or its code is about it.
    :ivar says: what there is when it is met.
    :ivar by_root: only root can look.
    """

    name: str
    words: tuple[str, ...]
    says: Callable[[HostInventory], str]
    by_root: bool = False


#: The first row that fits a reason has it; the last one fits all that no other has.
_ROWS: tuple[_Row, ...] = (
    _Row(
        "CRIU", ("criu-",), lambda host: f"{host.criu_version} works with kernel {host.kernel}", by_root=True
    ),
    _Row("capabilities", ("CAP_",), lambda host: "all that CRIU and TCP_REPAIR need", by_root=True),
    _Row("packet filter", ("packet filter",), lambda host: "nftables can be used", by_root=True),
    _Row("limits", ("ulimit",), lambda host: f"a process may have {host.most_descriptors} files open"),
    _Row("memory", ("images",), lambda host: f"{size(host.image_space_bytes)} for images of a process"),
    _Row("network", ("interfaces",), lambda host: f"{len(host.interfaces)} interfaces"),
    _Row("journals", ("",), lambda host: "/run can be written to"),
)


def of_host(host: HostInventory, role: str, name: str = "") -> list[Finding]:
    """What *host* has of what is needed, and lacks.

    :param name: the destination, as it was named.
    """
    if host.root or any("CAP_" in problem for problem in host.problems):
        found = [Finding(role, "root", True, "it is done as root")]
        rows = _ROWS
    else:
        whole = f"Log in as root: root@{name}." if name else "Run it as root, e.g. by sudo."
        found = [Finding(role, "root", False, "it is done without root, who alone can see the rest", whole)]
        rows = tuple(row for row in _ROWS if not row.by_root)
    subject = Subject(ProcessInventory(), host, host)
    reasons = [*host_problems(subject), *(criu_works(subject) if rows == _ROWS else ())]
    of_row: dict[str, list[Reason]] = {row.name: [] for row in rows}
    for reason in (one for one in reasons if one.role == ORIGIN):
        of_row[next(row.name for row in rows if _fits(row, reason))].append(reason)
    for row in rows:
        wrong = of_row[row.name]
        found += [Finding.lacking(role, row.name, one) for one in wrong]
        found += [] if wrong else [Finding(role, row.name, True, row.says(host))]
    return found


def _fits(row: _Row, reason: Reason) -> bool:
    return any(word in f"{reason.code} {reason.text}" for word in row.words)


def of_both(here: HostInventory, there: HostInventory) -> Iterator[Finding]:
    """What the two hosts need of each other."""
    subject = Subject(ProcessInventory(), here, there)
    for name, check, says in (
        ("other host", two_hosts, f"{there.hostname} is another one"),
        ("processor", same_processor, f"{there.machine}, with all that programs here may be using"),
    ):
        wrong = [Finding.lacking(DESTINATION, name, reason) for reason in check(subject)]
        yield from wrong or [Finding(DESTINATION, name, True, says)]
