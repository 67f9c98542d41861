"""Three clients of a redis that ask without pause, and what they have seen: no reset, no byte lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from harness.wait import eventually
from harness.workloads import Client
from migrate.lab import Lab

CLIENTS = 3


@contextlib.contextmanager
def clients(lab: Lab, address: str) -> Iterator[list[Client]]:
    """They run on the peer, one request every few milliseconds each, and never connect again."""
    started: list[Client] = []
    try:
        for number in range(CLIENTS):
            words = (address, 0.003, f"counter{number}")
            started.append(Client.start(lab.hosts["peer"], "redis_counter.py", *words))
        yield started
    finally:
        for one in started:
            one.process.kill()
            one.process.wait()


def asked(all_of_them: Sequence[Client]) -> list[dict[str, Any]]:
    """What each says of what it has seen."""
    return [one.ask() for one in all_of_them]


def whole(found: Sequence[dict[str, Any]]) -> bool:
    """No client had an error, an answer that was not the next one, or to connect again."""
    return all(not (one["error"] or one["wrong_answers"] or one["reconnected"]) for one in found)


def served(all_of_them: Sequence[Client], before: Sequence[dict[str, Any]]) -> bool:
    """Whether each client, none of which had an error, gets on from where it was *before*."""

    def further() -> bool:
        found = asked(all_of_them)
        assert whole(found), found
        return all(b["incremented"] > a["incremented"] + 10 for a, b in zip(before, found, strict=True))

    return eventually(further, "all clients are served")


def errors(all_of_them: Sequence[Client]) -> list[str]:
    """What went wrong, once each client has been served again or one has had an error."""
    before = asked(all_of_them)
    found = before

    def seen() -> bool:
        nonlocal found
        if not any(one["error"] for one in found):  # a client that says its error has ended
            found = asked(all_of_them)
        return any(one["error"] for one in found) or all(
            b["incremented"] > a["incremented"] for a, b in zip(before, found, strict=True)
        )

    eventually(seen, "all clients are served, or one has an error")
    return [one["error"] for one in found if one["error"]]
