"""What runs on the gateway: ``migrate-agent --gateway [--to HOP]... ADDRESS...``, to which a key is bound.

Whoever has the key can see where the routes to the addresses named there lead, and have them lead to another one of
the hops named there; nothing else. One line of JSON is a question, one an answer; the first says what may be asked.
"""

from __future__ import annotations

import ipaddress
import json
import os
import select
import sys
from collections.abc import Sequence
from typing import Any

from migrate import limits
from migrate.errors import SwitchError
from migrate.switch.route import table
from migrate.switch.route.asked import boot_time
from migrate.switch.route.table import Ip

_USAGE = "usage: migrate-agent --gateway [--to HOP]... ADDRESS..."
_MOST_BYTES = 4096
#: A question's keys.
_KEYS = {"look": {"do", "address"}, "lead": {"do", "address", "before", "to", "until"}}


class Allowed:
    """What may be done here."""

    def __init__(self, addresses: Sequence[Ip], hops: Sequence[Ip]) -> None:
        self.addresses, self.hops = addresses, hops

    @classmethod
    def of(cls, words: Sequence[str]) -> Allowed:
        """As the command's words say. :raises ValueError: they make no sense."""
        found: dict[str, list[Ip]] = {"address": [], "--to": []}
        what = "address"
        for word in words:
            if word == "--to" and what == "address":
                what = "--to"
            else:
                found[what].append(ipaddress.ip_address(word))
                what = "address"
        if what != "address":
            raise ValueError("--to is followed by a next hop")
        return cls(found["address"], found["--to"])

    def answer(self, line: bytes) -> dict[str, Any]:
        """What is said to *line*; what it asks for has been done then, or nothing has.

        :raises ValueError: it is no question.
        """
        asked = json.loads(line)
        if not isinstance(asked, dict) or {*asked} != _KEYS.get(str(asked.get("do"))):
            raise ValueError("no question")
        until = asked.pop("until", 0.0)
        if not isinstance(until, float) or not all(isinstance(one, str) for one in asked.values()):
            raise ValueError("no question")
        try:
            return self._done(asked, until)
        except SwitchError as error:
            return {"problem": error.problem.text, "remedy": error.problem.hint}
        except OSError as error:
            return {"problem": f"the kernel does not say: {error.strerror}"}

    def _done(self, asked: dict[str, str], until: float) -> dict[str, Any]:
        ip = _one_of(self.addresses, asked["address"], "its routes", "after --gateway")
        if not table.may_change():
            raise SwitchError(
                "it may change no routes: it is not root", hint="Log in there as root, or by sudo."
            )
        if asked["do"] == "lead":
            hops = [_one_of(self.hops, asked[key], "a route to it", "after --to") for key in ("before", "to")]
            if not boot_time() < until:
                raise SwitchError("the change came too late, and was not made", hint="Look at the way to it.")
            table.lead(ip, *hops)
        return {"route": table.hop(ip), "used": table.used(ip)}


def _one_of(allowed: Sequence[Ip], text: str, what: str, where: str) -> Ip:
    """:raises SwitchError: it is not."""
    for one in allowed:
        if str(one) == text:
            return one
    hint = f"If it shall, name it there {where}, in the command that the key is bound to (~/.ssh/authorized_keys)."
    raise SwitchError(f"{text!r} is not named there: {what} cannot be changed", hint=hint)


def main(words: Sequence[str]) -> int:
    """Answer until the other side ends, or is silent for too long; the exit status."""
    try:
        allowed = Allowed.of(words)
    except ValueError as error:
        print(f"{error}; {_USAGE}", file=sys.stderr)
        return 2
    hops, addresses = ([str(one) for one in some] for some in (allowed.hops, allowed.addresses))
    _say({"addresses": addresses, "hops": hops})
    unread = b""
    while True:
        line, newline, rest = unread.partition(b"\n")
        if newline:
            try:
                _say(allowed.answer(line))
            except (ValueError, RecursionError):
                print("that was no question", file=sys.stderr)
                return 1
            unread = rest
            continue
        if len(unread) > _MOST_BYTES or not select.select([0], [], [], limits.PATIENCE_S)[0]:
            return 1
        if not (more := os.read(0, _MOST_BYTES)):
            return 0
        unread += more


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what | {"now": boot_time()}) + "\n")
    sys.stdout.flush()
