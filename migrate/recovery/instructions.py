"""What a person is told to do with a migration in doubt, and how a host is looked at."""

from __future__ import annotations

from migrate import host_name
from migrate.journal.reach import Reach
from migrate.recovery import hold
from migrate.recovery.records import Record


def in_doubt(record: Record) -> list[str]:
    """Have the destination asked; only when that is impossible look and decide. *record* is the origin's."""
    host, pid = record.other_host, record.destination_pid or record.pid
    decide = f"migrate --recover --{{}} {record.migration_id} --force"
    return [
        f"The link was lost after the process had been given away. It is frozen here as PID {record.pid}, cut off "
        f"from the network, and will not run again by itself. {hold.said(record)}",
        f"1. When {host} can be reached, have it asked, and what it says done:  migrate --recover",
        f"2. If it cannot be reached from here any more, look there, if need be on its console:  {look(record)}",
        f'   It must say "PID {pid}: runs here", or nothing of the process; while it says "under way", wait.',
        f"   If it runs there, end the copy here:                 {decide.format('release')}",
        f"   If it does not and never will, let it go on here:    {decide.format('resume')}",
        "   Nobody checks what --force does: if you are wrong, two copies run, or none.",
    ]


def undecided(other_host: str) -> str:
    """Where the process is while nobody knows; *other_host* is the destination."""
    return f"in doubt: frozen on {host_name.here(other=other_host)}, perhaps running on {other_host}"


def look(record: Record) -> str:
    """The command that shows, and puts in order, what a migration has left on the other host."""
    return Reach.read(record.reach, record.other_host).command("--recover")
