"""The states of the destination: what is done in which order, and what is undone when any of it fails."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from destination_fakes import CONNECTED, ID, PREPARE, RESTORE, World, world

from migrate import place, problems
from migrate.destination.stage import Left, Undone
from migrate.errors import CriuError, MigrateError, ProtocolError
from migrate.link.payloads import Connections, Packets, Piece
from migrate.pb import session_pb2 as pb
from tcpcp.errors import TcpcpError

__all__ = ["world"]

#: What is done only when this is in the journal.
JOURNALED = {
    "isolation.prepare": "+isolation",
    "place.make_images": "+images",
    "switch.prepare": "+switch",
    "windows.enter": "+routes",
    "worker.restore": "+criu",
    "stages.finish": "+RESTORED",
    "switch.keep": "+COMMITTED",
    "isolation.release": "+ACTIVATED",
}
ENTRIES = [
    *("journal", "isolation", "images", "switch", "sockets", "routes", "tree", "criu", "tree"),
    *("RESTORED", "COMMITTED", "ACTIVATED", "MOVED"),
]
#: What is timed until the tree is built.
BUILT = ["prepare", "verify", "compile", "hold", "build", "finish"]
#: More than a migration makes.
MOST_CALLS = 130


def test_the_journal_of_one_that_comes_to_its_end(world: World) -> None:
    world.run()
    assert len(world.calls) < MOST_CALLS
    assert [name[1:] for name in world.calls if name[0] == "+"] == ENTRIES
    assert (world.stage, world.destination.not_here) == ("Left", False)
    assert "roll_back" not in world.calls and not place.home(ID).exists()


def test_what_is_done_was_in_the_journal_before(world: World) -> None:
    world.run()
    for done, entry in JOURNALED.items():
        assert world.calls.index(entry) < world.calls.index(done)
    first, last = (i for i, name in enumerate(world.calls) if name == "+tree")
    assert first < world.calls.index("worker.restore") < world.calls.index("criu post-restore") < last


def test_what_the_driver_is_told(world: World) -> None:
    told = {kind: say() for kind, say in world.messages()}
    assert (told["restore"].destination_pid, told["restore"].notes) == (7, ["a note", "another note"])
    assert [one.name for one in told["restore"].phases] == BUILT
    assert [one.name for one in told["commit"].phases][-2:] == ["switch", "activate"]
    assert (told["commit"].destination_pid, len(told["commit"].tasks)) == (7, 2)


@pytest.mark.parametrize(
    ("until", "stage", "looked"),
    [
        ("prepare", "Prepared", ["worker.check", "lease.renew"]),
        ("restore", "Restored", ["built.require", "worker.check", "lease.renew"]),
        ("switch", "Switched", ["built.require", "worker.check", "lease.renew", "switch.renew"]),
        ("commit", "Activated", []),
        ("goodbye", "Left", []),
    ],
)
def test_what_is_looked_at_while_the_driver_is_waited_for(
    world: World, until: str, stage: str, looked: list[str]
) -> None:
    world.run(until)
    world.calls.clear()
    world.destination.watch()
    assert (world.stage, world.calls) == (stage, looked)


def test_nothing_holds_criu_up_once_the_process_is_ours(world: World) -> None:
    world.run()
    ours = world.calls[world.calls.index("+COMMITTED") :]
    assert "called_off" not in ours and "lease.renew" not in ours
    running = ours[ours.index("+ACTIVATED") :]
    assert "built.require" not in running


# --- failures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", range(1, MOST_CALLS))
def test_any_call_fails(world: World, call: int) -> None:
    error = (CriuError, TcpcpError, OSError)[call % 3]
    world.fail_at, world.error = call, lambda: error("no")
    try:
        with problems.step("restore", "destination"):
            world.run("commit")
    except MigrateError as caught:
        told = caught.problem
        assert (told.kind, told.host) == (error.__name__, "destination") and told.phase
        said, before, after = world.settle()
    else:  # all is done before, or without it
        done_without = ("worker.check", "stages.wake", "criu post-resume")
        assert call > len(world.calls) or world.calls[call - 1] in done_without
        return
    if "+ACTIVATED" in before:
        assert after == ["arrived.keep", "worker.close", "tidy", "+MOVED", "guardian.wait_end"]
        assert (world.stage, world.destination.not_here) == ("Left", False)
        assert said == ("the process runs on the destination", [])
    else:
        expected = ["worker.close"] if "called_off" in before else []
        expected += ["roll_back"]
        expected += (["capture.take"] if "switch.switch" in before else []) + [
            "+ROLLED_BACK",
            "guardian.wait_end",
        ]
        assert after == (expected if "guardian" in before else [])
        assert world.destination.not_here
        given = "+COMMITTED" in before
        assert said == ("the process does not run on the destination" if given else "", [])
    assert not place.home(ID).exists()


@pytest.mark.parametrize("until", ["prepare", "restore", "switch"])
def test_the_driver_calls_it_off(world: World, until: str) -> None:
    world.run(until)
    aborted = world.destination.abort(pb.Abort())
    assert (aborted.undone, aborted.problems) == (["undone"], [])
    assert aborted.packets == ([b"caught"] if until == "switch" else [])
    assert (world.stage, place.home(ID).exists()) == ("Undone", False)
    world.calls.clear()
    assert world.destination.abort(pb.Abort()).undone == []  # asked again, it has nothing more to undo
    world.destination.handlers()["gap"](Packets([b"late"]))
    assert world.calls == []


def test_nobody_calls_it_off_when_it_runs_here(world: World) -> None:
    world.run("commit")
    with pytest.raises(ProtocolError, match="an abort after the commit"):
        world.destination.abort(pb.Abort())
    assert world.stage == "Activated"


def test_what_was_caught_is_told_after_the_failure(world: World) -> None:
    world.run("switch")
    assert world.destination.settle() == ("", [])
    assert world.destination.abort(pb.Abort()).packets == [b"caught"]


def test_a_tree_that_cannot_be_killed_is_here(world: World) -> None:
    world.run("restore")
    world.gone, world.problems = False, ["could not kill 7"]
    assert world.destination.settle() == ("", ["could not kill 7"])
    assert not world.destination.not_here
    assert (place.home(ID) / "journal").exists()  # for the guardian
    world.gone = True
    assert world.destination.not_here


def test_the_end_is_an_end(world: World) -> None:
    """A link that breaks behind it changes nothing."""
    for ended in (Undone(None, ()), Left()):
        assert (
            ended.settle() == (ended, "", [])
            and ended.goodbye() == (ended, pb.Goodbye())
            and ended.undo()[0] is ended
        )
    world.run()
    world.calls.clear()
    assert (world.destination.settle(), world.calls, world.destination.not_here) == (("", []), [], False)


def test_what_was_loaded_before_the_freeze_is_not_collected_in_it(world: World) -> None:
    """The collector's look at all of it would take 30 ms."""
    gc.unfreeze()
    world.destination.takes("prepare")
    world.destination.prepare(PREPARE)
    held = gc.get_freeze_count()
    gc.unfreeze()
    assert held > len(gc.get_objects()) / 2


def test_a_state_is_used_once(world: World) -> None:
    here = world.destination
    stages: list[Any] = [here._stage]
    here.takes("prepare")
    here.prepare(PREPARE)
    stages.append(here._stage)
    here.handlers()["connections"](Connections(b"records", CONNECTED.sockets))
    here.takes("restore")
    here.restore(RESTORE)
    stages.append(here._stage)
    here.switch(pb.Switch())
    stages.append(here._stage)
    here.commit(pb.Commit())
    asked, prepared, restored, switched = stages
    for again in (
        lambda: asked.begin(PREPARE),
        lambda: prepared.build(RESTORE),
        restored.switch,
        switched.commit,
    ):
        with pytest.raises(RuntimeError, match="was used before"):
            again()


def test_a_message_of_another_state(world: World) -> None:
    world.run("restore")
    for kind, message in (("prepare", PREPARE), ("image", Piece("a.img")), ("commit", pb.Commit())):
        with pytest.raises(ProtocolError, match="does not belong to the state Restored"):
            world.destination.handlers()[kind](message)
