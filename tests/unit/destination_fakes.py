"""A destination whose CRIU, filter, addresses and images are fakes that tell of every call, and may fail in one.

The journal is a real one, in a directory of the test.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from migrate import place
from migrate.criu.worker import Stage
from migrate.destination import gate, given, incoming, prepared, restored, trail, waiting
from migrate.destination.destination import Destination
from migrate.destination.errand import Errand
from migrate.gap.packets import Segment
from migrate.journal.journal import Journal
from migrate.link.payloads import Connections, Packets, Piece
from migrate.pb import session_pb2 as pb
from tcpcp.record.ici import Endpoint, State

ID = "0123456789ab"
TASKS = [pb.TaskState(pid=7, state="S"), pb.TaskState(pid=8, state="S")]
PREPARE = pb.Prepare(
    pids=[7, 8], tids=[9], switch_kind="address", timeout_s=60, connections=2, same_path=True
)
RESTORE = pb.Restore(tasks=TASKS, most_ms=100_000)
RESTORE.sockets.add(inode=3).holders.add(pid=7, fd=5)
CONNECTED = pb.Connections()
for _inode in (1, 2):
    CONNECTED.sockets.add(inode=_inode).holders.add(pid=7, fd=_inode)


def _at(number: int) -> Endpoint:
    return Endpoint(ipaddress.ip_address(f"10.0.0.{number}"), 80)


@dataclass(frozen=True)
class Ici:
    """As much of one as the destination looks at itself."""

    tag: int
    peer: Endpoint
    state: State
    local: Endpoint = _at(1)
    device: str = ""


CAUGHT = Segment(b"\x45", b"", b"", b"", b"caught")
ICIS = [Ici(1, _at(2), State.ESTABLISHED), Ici(2, _at(3), State.SYN_RECV)]


class World:
    """What is around the destination.

    :ivar calls: names of what was called, ``+NAME`` for a journal entry, in this order.
    :ivar fail_at: number of the call that fails with *error*, counted from 1; 0: none.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail_at = 0
        self.error: Callable[[], Exception] = lambda: OSError(28, "No space left")
        self.gone = True
        self.problems: list[str] = []
        self.destination = Destination(
            Errand(pb.Hello(migration_id=ID, hostname="origin"), lambda: self.call("called_off"))
        )

    def call(self, name: str, result: Any = None) -> Any:
        self.calls.append(name)
        if len(self.calls) == self.fail_at:
            raise self.error()
        return result

    def fake(self, name: str, **results: Any) -> Any:
        """A class, of which any method may be called; each gives what *results* says."""
        world = self

        class Fake:
            def __init__(self, *_: Any, **__: Any) -> None:
                world.call(name)

            def __getattr__(self, method: str) -> Any:
                return lambda *_, **__: world.call(f"{name}.{method}", results.get(method))

        return Fake

    def function(self, name: str, result: Any = None) -> Callable[..., Any]:
        return lambda *_, **__: self.call(name, result)

    def messages(self) -> list[tuple[str, Callable[[], Any]]]:
        """What a driver says, in its order."""
        here, handlers = self.destination, self.destination.handlers()
        said = {
            "prepare": PREPARE, "copy": Piece(name="/x"), "image": Piece(name="a.img"),
            "connections": Connections(b"records", CONNECTED.sockets),
            "restore": RESTORE, "gap": Packets([b"p"]), "switch": pb.Switch(), "commit": pb.Commit(),
            "goodbye": pb.Goodbye(),
        }  # fmt: skip

        def say(kind: str) -> Any:
            here.watch()
            here.takes(kind)
            return handlers[kind](said[kind])

        return [(kind, lambda kind=kind: say(kind)) for kind in said]  # type: ignore[misc]

    def run(self, until: str = "goodbye") -> None:
        """All of it, until *until* has been dealt with; raises what is raised."""
        for kind, say in self.messages():
            say()
            if kind == until:
                return

    def settle(self) -> tuple[tuple[str, list[str]], list[str], list[str]]:
        """After a call has failed: what is said, what had been called without a failure, what is called now."""
        before, count = self.calls[: self.fail_at - 1], len(self.calls)
        return self.destination.settle(), before, self.calls[count:]

    @property
    def stage(self) -> str:
        """The name of the state."""
        return type(self.destination._stage).__name__


def _worker(world: World) -> Any:
    class Worker:
        namespace_init, pid, start, own_numbers = 0, 500, 5, False

        def __init__(self, **given: Any) -> None:
            world.call("worker")
            self.heed = given["heed"]
            self.heed()

        def check(self) -> None:
            world.call("worker.check")

        def keep(self) -> None:
            """The others are those whose order matters."""

        def problems(self) -> list[str]:
            return []

        def close(self, **_: Any) -> None:
            world.call("worker.close")

        def restore(self, _: Any) -> Iterator[Stage]:
            world.call("worker.restore")
            return self._run()

        def _run(self) -> Iterator[Stage]:
            for name in ("pre-restore", "post-restore", "pre-resume", "post-resume"):
                self.heed()
                world.call(f"criu {name}")
                yield Stage(name, 7)

    return Worker


def _journal(world: World, patch: pytest.MonkeyPatch) -> None:
    write = Journal._write

    def told(self: Journal, line: dict[str, Any]) -> None:
        kind = line.get("did") or line.get("state") or line.get("end")
        world.call(f"+{kind or 'journal'}")
        json.dumps(line)
        write(self, line)

    patch.setattr(Journal, "_write", told)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    """A destination of which nothing has been asked yet."""
    made, patch = World(), monkeypatch.setattr
    patch(place, "STATE", tmp_path / "state")
    patch(place, "choose_images", lambda _: tmp_path)
    opened = lambda path: (os.open(path, os.O_RDONLY),)  # noqa: E731
    patch(place, "make_images", lambda path: made.call("place.make_images") or opened(path))
    _journal(made, monkeypatch)
    patch(trail, "Guardian", made.fake("guardian"))
    patch(trail.undo, "roll_back", lambda _: made.call("roll_back", (["undone"], made.problems)))
    patch(trail.undo, "tidy_destination", lambda _: made.call("tidy", made.problems))
    patch(waiting, "Worker", _worker(made))
    switch = made.fake("switch", details={"kind": "address"}, marked=[])
    patch(gate.switch, "make", lambda *_: switch())
    patch(gate.switch_netlink, "here", set)
    for name in ("Isolation", "Lease", "Injector", "Inlet"):
        patch(gate, name, made.fake(name.lower()))
    patch(gate, "Capture", made.fake("capture", take=[CAUGHT]))
    patch(incoming, "Receiver", made.fake("receiver"))
    patch(incoming.completion, "Completion", made.fake("completion", finish=ICIS))
    patch(incoming.completion, "listeners_of_images", made.function("listeners", [_at(9)]))
    patch(incoming.parents_death, "forget", made.function("forget", ["a note"]))
    patch(prepared, "FileTaker", made.fake("taker"))
    patch(prepared.announced, "root", made.function("announced.root"))
    patch(prepared.announced, "addresses", made.function("announced.addresses"))
    patch(prepared.built, "free", made.function("built.free"))
    patch(prepared.still_free, "require", made.function("still_free"))
    patch(prepared.still_free, "require_udp", made.function("still_free.udp"))
    patch(prepared.built, "not_listening", made.function("not_listening", []))
    built = made.fake("built", seen=TASKS)
    built.gone = lambda self: made.gone
    patch(prepared.built, "Built", built)
    patch(prepared.tree, "tasks", made.function("tree.tasks", [7, 8]))
    patch(prepared.identity, "identity", lambda pid: (pid, 1))
    windows = made.fake("windows")
    windows.routes = [b"route"]
    windows.__enter__ = lambda self: made.call("windows.enter")
    windows.__exit__ = lambda self, *_: None
    patch(prepared.stages, "restoring", made.function("restoring", windows()))
    made.calls.clear()
    for name in ("prepare", "finish", "wake"):
        patch(prepared.stages, name, made.function(f"stages.{name}"))
    patch(restored.surroundings, "put_back", made.function("put_back", ["another note"]))
    patch(given.arrived, "keep", made.function("arrived.keep"))
    return made
