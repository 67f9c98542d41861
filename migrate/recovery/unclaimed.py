"""What a migration has left on this host whose journal has gone as well: images, which nobody holds, and tables.

A journal is put back as long as its owner or its guardian lives (:meth:`migrate.journal.journal.Journal.keep`).
Where both were killed nothing names its images, which are memory of a process, but their own name.
"""

from __future__ import annotations

import shutil

from migrate import place, switch
from migrate.errors import MigrateError
from migrate.recovery import unseen
from tcpcp.endpoint import isolation
from tcpcp.errors import TcpcpError


def remove() -> list[str]:
    """Remove it; sentences: what was removed, and what could not be. Those of who is at work are left alone.

    So is what belongs to a copy that is still held: its journal may come to light.
    """
    held = {one.migration_id for one in unseen.all_of_this_host()}
    with place.images_left() as left:
        return [_remove(one, str(directory)) for one, directory in left if one not in held]


def _remove(migration_id: str, path: str) -> str:
    whose = f"migration {migration_id}, whose journal is gone"
    try:
        isolation.remove(migration_id)
        switch.make("address", "destination", migration_id, []).undo()
        shutil.rmtree(path)
    except (MigrateError, TcpcpError, OSError) as error:
        return f"{whose}: {path} is left: {error}"
    return f"{whose}: its images were removed from {path}, and its packet filter"
