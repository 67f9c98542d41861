"""The host keys that the user and the system know: OpenSSH's known_hosts files. Text in, answers out.

paramiko's own reader knows neither patterns nor ``@revoked``, keeps one key of a type per host, and fails
on a line that is not base64; so this one reads all that sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT", describes.
Certificate authorities are skipped: a host known only through one counts as unknown, which is safe.
"""

from __future__ import annotations

import base64
import enum
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass


class Verdict(enum.Enum):
    """What the files say about a host's key."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line.

    :ivar hosts: its patterns, or the one hashed name.
    :ivar blob: the public key as SSH sends it.
    :ivar place: file and line number, for messages.
    """

    hosts: tuple[str, ...]
    kind: str
    blob: bytes
    revoked: bool
    place: str

    def matches(self, name: str) -> bool:
        """Return whether the line is about the host *name*, as :func:`lookup_name` writes it."""
        if self.hosts[0].startswith("|1|"):
            return _hashed_matches(self.hosts[0], name)
        if any(host[0] == "!" and fnmatch.fnmatchcase(name, _literal(host[1:])) for host in self.hosts):
            return False
        return any(fnmatch.fnmatchcase(name, _literal(host)) for host in self.hosts)


def lookup_name(host: str, port: int, alias: str = "") -> str:
    """Return the name under which the host's key is looked up; ``[host]:port`` if the port is not 22."""
    if alias:
        return alias.lower()
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def parse(lines: Iterable[str], file: str) -> list[Entry]:
    """Return the entries among *lines* of *file*; as in OpenSSH, a line that makes no sense is skipped."""
    entries = (_parse_line(line, f"{file}:{number}") for number, line in enumerate(lines, 1))
    return [entry for entry in entries if entry is not None]


def judge(entries: Iterable[Entry], name: str, kind: str, blob: bytes) -> tuple[Verdict, list[Entry]]:
    """Return what *entries* say about the key *blob* of type *kind* shown by the host *name*, and which do.

    A host that is known by keys of other types only is UNKNOWN with those entries.
    """
    about = [entry for entry in entries if entry.matches(name)]
    if revoking := [entry for entry in about if entry.revoked and entry.blob == blob]:
        return Verdict.REVOKED, revoking
    good = [entry for entry in about if not entry.revoked]
    if same := [entry for entry in good if entry.blob == blob]:
        return Verdict.KNOWN, same
    if others := [entry for entry in good if entry.kind == kind]:
        return Verdict.CHANGED, others
    return Verdict.UNKNOWN, good


def kinds(entries: Iterable[Entry], name: str) -> list[str]:
    """Return the types of the keys by which the host *name* is known, for the negotiation to prefer them."""
    return list(dict.fromkeys(entry.kind for entry in entries if entry.matches(name) and not entry.revoked))


def _parse_line(line: str, place: str) -> Entry | None:
    fields = line.split()
    if not fields or fields[0].startswith("#"):
        return None
    marker = fields.pop(0) if fields[0].startswith("@") else ""
    if marker not in ("", "@revoked") or len(fields) < 3:
        return None
    try:
        blob = base64.b64decode(fields[2], validate=True)
    except ValueError:  # no base64, or a character that is not ASCII
        return None
    hosts = tuple(host.lower() if host[0] != "|" else host for host in fields[0].split(",") if host)
    return Entry(hosts, fields[1], blob, bool(marker), place) if hosts else None


def _literal(pattern: str) -> str:
    # Only * and ? are special there; [host]:port holds brackets that fnmatch would take for a set.
    return pattern.replace("[", "[[]")


def _hashed_matches(hashed: str, name: str) -> bool:
    try:
        _, _, salt, digest = hashed.split("|")
        wanted = base64.b64decode(digest)
        found = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
    except ValueError:
        return False
    return hmac.compare_digest(wanted, found)
