"""What a person is told to do with a migration in doubt."""

from __future__ import annotations

import shlex

from migrate import hold
from migrate.journal import Record


def in_doubt(record: Record) -> list[str]:
    """Look, then decide: line by line. *record* is the origin's journal."""
    name = shlex.quote(record.other_host)
    pid = record.destination_pid or record.pid
    return [
        "The link was lost after the process had been given away. It is frozen here as PID "
        f"{record.pid}, cut off from the network, and will not run again by itself. {hold.said(record)}",
        f"1. Let the destination settle, and look whether it runs there:  ssh {name} 'migrate --recover; "
        f"ps -o pid,lstart,args -p {pid}'",
        f"2. If it runs there, end the copy here:                         migrate --recover --release "
        f"{record.migration_id}",
        f"3. If it does not, let it go on here:                           migrate --recover --resume "
        f"{record.migration_id}",
    ]
