"""Another process that uses the library, told line by line what to do: passes, creates, answers, gets killed."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator

from netns import Namespace

_CODE = """
import signal, socket, sys
import tcpcp
from tcpcp.endpoint import isolation

signal.alarm(30)  # whatever becomes of the test
isolation.TIMEOUT_S = int(sys.argv[2])
sock = socket.socket(fileno=int(sys.argv[1])) if sys.argv[1] != "-" else None

def obey(command, *rest):
    global sock
    if command == "get":
        return tcpcp.dumps(tcpcp.get(sock)).hex()
    if command == "create":
        sock = tcpcp.create(tcpcp.loads(bytes.fromhex(rest[0])))
    elif command == "recv":
        sock.settimeout(5)
        return sock.recv(100).hex()
    elif command == "send":
        sock.sendall(bytes.fromhex(rest[0]))
    elif command == "close":
        sock.close()
    elif command == "prepare":
        tcpcp.prepare()
    else:
        getattr(tcpcp, command)(sock)
    return "done"

for line in sys.stdin:
    try:
        print(obey(*line.split()), flush=True)
    except Exception as error:
        print(f"! {type(error).__name__}: {error}", flush=True)
"""


class Actor:
    """Commands are the library's calls on its one socket, and recv and send."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def do(self, command: str, argument: str = "") -> str:
        """What it answers; an error of the library's fails the test."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{command} {argument}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer and not answer.startswith("!"), f"{command}: {answer or 'it died'}"
        return answer

    def pass_away(self) -> str:
        """get, release; the image."""
        image = self.do("get")
        self.do("release")
        return image

    def take(self, image: str) -> None:
        """create, activate."""
        self.do("create", image)
        self.do("activate")

    def answers(self, peer: socket.socket, within_s: float = 0.5) -> None:
        """A byte from *peer* reaches it, and one of its own the peer, without anybody's retransmission timer."""
        peer.settimeout(within_s)
        peer.sendall(b"?")
        assert bytes.fromhex(self.do("recv")) == b"?"
        self.do("send", b"!".hex())
        assert peer.recv(10) == b"!"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def actor(
    namespace: Namespace,
    sock: socket.socket | None = None,
    *,
    timeout_s: int = 60,
    own_pids: bool = False,
    raw: bool = True,
) -> Iterator[Actor]:
    """A process in *namespace*, PID 1 of its own if *own_pids*. It gets *sock*, which stays open here too.

    :param raw: with CAP_NET_RAW.
    """
    before = ["unshare", "--pid", "--fork", "--kill-child"] if own_pids else []
    before += [] if raw else ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]
    number = str(sock.fileno()) if sock else "-"
    with namespace.entered():
        process = subprocess.Popen(
            [*before, sys.executable, "-c", _CODE, number, str(timeout_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[sock.fileno()] if sock else [],
        )
    try:
        yield Actor(process)
    finally:
        if process.returncode is None:
            process.kill()
            process.communicate()
