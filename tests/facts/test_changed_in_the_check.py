"""A program that goes on while the check looks at it: what is put together of two moments is not told of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from netns import Namespace
from programs import program

from migrate import inventory
from migrate.inventory import proc, sockets
from migrate.inventory.descriptors import Descriptors
from migrate.inventory.files import Files
from migrate.pb.session_pb2 import File
from tcpcp.criu import tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces")

#: A child has the other end; the program itself has none. It is ready when the child has closed its own.
APART = """
done, tell = os.pipe()
if not os.fork(): {child}; os.close(done); os.write(tell, b"x"); os.close(tell); signal.pause()
{parent}; os.close(tell); os.read(done, 1); os.close(done); ready()
"""
PIPE = "r, w = os.pipe()" + APART.format(child="os.close(r)", parent="os.close(w)")
PAIR = "a, b = socket.socketpair()" + APART.format(child="a.close()", parent="b.close()")


def listed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first list of the tree is if its children were made just after."""
    whole, lists = tree.tasks_now, []

    def first(pid: int) -> list[int]:
        lists.append(pid)
        return [pid] if len(lists) == 1 else whole(pid)

    monkeypatch.setattr(tree, "tasks_now", first)


@pytest.mark.parametrize("code", [PIPE, PAIR], ids=["a pipe", "a unix connection"])
def test_a_child_that_was_made_when_the_tree_had_been_listed(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """As of every program that starts others: the child has the other end, and is in the tree."""
    with program(code) as pid:
        listed_before(monkeypatch)
        found = inventory.process(pid)
    assert list(found.obstacles) == []


def test_what_stays_outside_is_told(namespace: Namespace) -> None:
    """Of the child alone: its parent stays, and has the other end all the time."""
    for code, kind in ((PIPE, "pipe-written"), (PAIR, "unix-outside")):
        with program(code) as pid:
            (child,) = tree.tasks_now(pid)[1:]
            assert kind in {one.code for one in inventory.process(child).obstacles}


def test_a_connection_to_a_child_that_was_made_since(namespace: Namespace) -> None:
    """The second look that a connection gets is at the tree as it is then."""
    code = """
l = socket.create_server(("127.0.0.1", 0)); c = socket.create_connection(l.getsockname()); s, _ = l.accept()
if not os.fork(): c.close(); signal.pause()
s.close(); l.close(); ready()
"""
    with program(code) as pid, namespace.entered():
        held = list(tree.sockets_now([pid]))
        assert sockets.collect(held, [pid]).tcp == []


def late(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, change: Callable[[], object]) -> None:
    """The first call of that function is followed by *change*, before its result is used."""
    real, calls = getattr(module, name), []

    def call(*words: Any) -> Any:
        found = real(*words)
        calls.append(1)
        if len(calls) == 1:
            change()
        return found

    monkeypatch.setattr(module, name, call)


def test_a_directory_that_is_left_in_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the name of it and what it is: nothing is mounted over either."""
    (tmp_path / "next").mkdir()
    monkeypatch.chdir(tmp_path)
    late(monkeypatch, proc, "link", lambda: os.chdir("next"))
    files = Files()
    files._add_link(os.getpid(), "cwd", File.WORKING_DIRECTORY)
    assert (files.obstacles, [one.path for one in files.found]) == ([], [str(tmp_path / "next")])


@pytest.mark.parametrize("other", ["a file", "a socket"])
def test_a_descriptor_that_is_another_one_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """What it is now is added, if that has a path; when it is none it was closed."""
    (tmp_path / "first").touch()
    (tmp_path / "second").touch()
    opened = os.open(tmp_path / "first", os.O_RDONLY)
    left, right = socket.socketpair()
    second = os.open(tmp_path / "second", os.O_RDONLY)
    late(
        monkeypatch,
        tree,
        "descriptors",
        lambda: os.dup2(second if other == "a file" else left.fileno(), opened),
    )
    files, tables = Files(), Descriptors()
    try:
        tables.add_process(os.getpid(), files)
    finally:
        for one in (opened, second):
            os.close(one)
        left.close()
        right.close()
    assert not [one for one in files.obstacles if one.fd == opened]
    ours = {Path(one.path).name for one in files.found if one.path.startswith(str(tmp_path))}
    assert ours == {"second"}
