"""``migrate --forwards``: the forwards of this host, on standard output; ``--end ID`` ends one of them."""

from __future__ import annotations

import sys

from migrate.errors import Exit, SwitchError
from migrate.switch.forward import listed
from migrate.switch.forward.listed import Forward
from migrate.units import size


def main(end: str = "") -> int:
    """Say which there are, one a paragraph, or end the one of the migration *end*. Those that have ended go.

    :return: the exit status; 0 if it could be said, or was ended.
    """
    try:
        listed.sweep()
        found = listed.present()
        if end:
            return _end(end, found)
    except SwitchError as error:
        print(f"migrate: {error}. {error.problem.hint}", file=sys.stderr)
        return int(Exit.UNTOUCHED)
    print("\n".join(line for one in found for line in _words(one)) or "no connections are forwarded")
    return 0


def _end(id_: str, found: list[Forward]) -> int:
    mine = [one for one in found if one.id == id_]
    if not mine:
        text = f"no connections of a migration {id_!r} are forwarded here. See `migrate --forwards`."
        print(f"migrate: {text}", file=sys.stderr)
        return int(Exit.UNTOUCHED)
    for one in mine:
        listed.end(one)
        print(f"migrate: {_warning(one)}", file=sys.stderr)
    return 0


def _warning(one: Forward) -> str:
    lost = f"{len(one.ends)} connections cannot go on"
    if one.family == "inet":
        return (
            f"{lost}: what comes for them finds no socket here any more. Restart the program that has them, and end"
            f" the forward at {', '.join(one.own)} too."
        )
    return (
        f"{lost}: their peers are reset when they send something, and the program at {one.to} waits until it gives"
        " up. Restart it, and end the forward there too."
    )


def _words(one: Forward) -> list[str]:
    if one.family == "inet":
        said = f"{len(one.ends)} connections of {', '.join(one.own)} are forwarded to this host"
    else:
        traffic = f"{size(one.there_bytes)} there, {size(one.back_bytes)} back"
        said = f"{len(one.ends)} connections of this host are forwarded to {one.to}: {traffic}"
    return [f"{one.id}  {said}", *(f"    {local} - {peer}" for local, peer in one.ends)]
