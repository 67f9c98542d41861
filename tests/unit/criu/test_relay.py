"""The process between CRIU, a runtime and us: once the tree is ours the talk goes to its end, even if we die."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from migrate.criu import relay

DEADLINE_S = 20.0


@dataclass
class Talks:
    """What each of the three has, and the pipe by which CRIU's end is told."""

    user: socket.socket
    criu: socket.socket
    runtime: socket.socket
    criu_lives: int

    def stage(self, name: str) -> None:
        """CRIU comes to it."""
        from pycriu import rpc_pb2 as rpc

        said = rpc.criu_resp(type=rpc.NOTIFY, success=True)
        said.notify.script = name
        self.criu.send(said.SerializeToString())

    def heard(self, *, well: bool = True) -> str:
        """The runtime hears of a stage, and answers."""
        from pycriu import rpc_pb2 as rpc

        said = rpc.criu_resp.FromString(self.runtime.recv(65536))
        self.runtime.send(rpc.criu_req(type=rpc.NOTIFY, notify_success=well).SerializeToString())
        return str(said.notify.script)

    def told(self) -> str:
        """The user hears of it."""
        from pycriu import rpc_pb2 as rpc

        return str(rpc.criu_resp.FromString(self.user.recv(65536)).notify.script)

    def said(self) -> bool:
        """CRIU hears whether it is to go on; False if the talk is over."""
        from pycriu import rpc_pb2 as rpc

        said = self.criu.recv(65536)
        return bool(said) and rpc.criu_req.FromString(said).notify_success

    def yes(self) -> None:
        """The user's."""
        from pycriu import rpc_pb2 as rpc

        self.user.send(rpc.criu_req(type=rpc.NOTIFY, notify_success=True).SerializeToString())

    def last_word(self) -> bytes:
        """CRIU has done it, and ends; what the runtime hears of that."""
        from pycriu import rpc_pb2 as rpc

        self.criu.send(rpc.criu_resp(type=rpc.RESTORE, success=True).SerializeToString())
        os.close(self.criu_lives)
        self.criu_lives = -1
        return self.runtime.recv(65536)


@pytest.fixture
def talks() -> Iterator[Talks]:
    """A restore that was asked for, and has come to its first stage."""
    from pycriu import rpc_pb2 as rpc

    with contextlib.ExitStack() as stack:
        (criu, criu_here), (runtime, runtime_here) = (
            socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)
        )
        for one in (criu, runtime):
            one.settimeout(DEADLINE_S)
            stack.enter_context(one)
        (user, theirs), (ended, lives) = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET), os.pipe()
        with theirs, criu_here, runtime_here:
            numbers = [theirs.fileno(), criu_here.fileno(), runtime_here.fileno(), ended]
            words = [sys.executable, *relay.PROGRAM, *map(str, numbers)]
            process = subprocess.Popen(words, pass_fds=numbers, stdout=subprocess.DEVNULL)
        os.close(ended)
        stack.enter_context(user).settimeout(DEADLINE_S)
        stack.enter_context(process)
        stack.callback(process.kill)
        made = Talks(user, criu, runtime, lives)
        user.send(rpc.criu_req(type=rpc.RESTORE).SerializeToString())
        assert rpc.criu_req.FromString(criu.recv(65536)).type == rpc.RESTORE
        made.stage("post-restore")
        assert made.heard() == "post-restore" == made.told()
        yield made
        if made.criu_lives >= 0:
            os.close(made.criu_lives)
        assert process.wait(DEADLINE_S) == 0


def over(one: socket.socket) -> bool:
    """Whether nothing but the end is to be read, now or soon."""
    poll = select.poll()
    poll.register(one, select.POLLIN)
    return bool(poll.poll(1000 * DEADLINE_S)) and one.recv(65536) == b""


def test_the_user_goes_before_the_tree_is_kept(talks: Talks) -> None:
    talks.user.close()
    assert over(talks.criu) and over(talks.runtime)


def test_the_user_goes_while_criu_works(talks: Talks) -> None:
    talks.yes()
    assert talks.said()
    talks.user.close()
    assert over(talks.criu) and over(talks.runtime)


@pytest.mark.parametrize("answered", [False, True])
def test_the_user_goes_when_the_tree_is_kept(talks: Talks, answered: bool) -> None:
    """All go on, and the runtime hears how it ended."""
    talks.user.send(relay.KEEP)
    if answered:
        talks.yes()
        assert talks.said()
    talks.user.close()
    if not answered:
        assert talks.said()
    for stage in ("pre-resume", "post-resume"):
        talks.stage(stage)
        assert talks.heard() == stage
        assert talks.said()
    assert talks.last_word()


def test_the_user_gives_up_what_it_has_kept(talks: Talks) -> None:
    """CRIU did not come to the end of its work."""
    talks.user.send(relay.KEEP)
    talks.yes()
    assert talks.said()
    talks.user.send(relay.STOP)
    assert over(talks.criu) and over(talks.runtime)


def test_the_runtime_goes(talks: Talks) -> None:
    talks.yes()
    assert talks.said()
    talks.runtime.close()
    talks.stage("pre-resume")
    assert over(talks.criu) and over(talks.user)


def test_criu_goes_and_its_helpers_do_not(talks: Talks) -> None:
    """They have its end of the talk."""
    talks.yes()
    assert talks.said()
    os.close(talks.criu_lives)
    talks.criu_lives = -1
    assert over(talks.user) and over(talks.runtime)
