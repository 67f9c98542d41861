"""The gateway as the two hosts see it: asked by lines of JSON, over an ssh program that is kept for the next one.

To connect takes longer than to ask, and the process is frozen while it is asked to change a route.

A question whose answer nobody waits for any more may still be on its way: TCP sends it again when we have given up,
or died. So a change has a time, by the gateway's clock, after which it is not made.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from migrate import limits
from migrate.errors import SwitchError, UsageError
from migrate.ssh import host, program

COMMAND = "migrate-agent --gateway"
_MOST_BYTES = 1 << 16
_HINT = (
    "`ssh -oBatchMode=yes {name} migrate-agent --gateway` must greet root with addresses: its host key is known,"
    " and our key is bound to that command there (docs/switching.md)."
)


#: By name and network namespace.
_kept: dict[tuple[str, int], Gateway] = {}


def gateway(name: str) -> Gateway:
    """That of the name, connected; the one that this program has already, in this network namespace, if it lives.

    :raises SwitchError: it cannot be reached, or says something else than it should.
    """
    key = name, Path("/proc/thread-self/ns/net").stat().st_ino
    if key not in _kept or not _kept[key].lives:
        disconnect()
        _kept[key] = Gateway(name)
    return _kept[key]


def disconnect() -> None:
    """End all connections; the next one to ask makes its own."""
    while _kept:
        _kept.popitem()[1].close()


class Gateway:
    """A connection, made when the constructor returns.

    :ivar addresses: those whose routes it may change. :ivar hops: where these may lead to.
    """

    def __init__(self, name: str) -> None:
        self._name, self._unread, self._clock_ahead_s = name, b"", 0.0
        self._said = os.fdopen(os.memfd_create("migrate-gateway"), "rb", buffering=0)
        self._process = self._started()
        try:
            hello = self._heard(limits.GATEWAY_CONNECT_S)
            self.addresses, self.hops = _texts(hello.get("addresses")), _texts(hello.get("hops"))
        except (OSError, ValueError, TypeError) as error:
            raise self._failed(str(error)) from error
        except BaseException:
            self.close()
            raise

    @property
    def lives(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def look(self, address: str) -> tuple[str, str]:
        """The next hop of the route to *address* alone, and the one that its kernel would use for a packet.

        :raises SwitchError: it cannot be asked, or there is no such route.
        """
        return self._route({"do": "look", "address": address})

    def lead(self, address: str, before: str, to: str) -> tuple[str, str]:
        """Have the route that leads to *before* lead to *to*; as :meth:`look`, afterwards.

        :raises SwitchError: it cannot be asked, or may not, or the route leads somewhere else.
        """
        until = self._clock_ahead_s + boot_time() + limits.GATEWAY_ANSWER_S
        return self._route({"do": "lead", "address": address, "before": before, "to": to, "until": until})

    def _route(self, question: dict[str, str | float]) -> tuple[str, str]:
        try:
            assert self._process.stdin is not None
            os.write(self._process.stdin.fileno(), json.dumps(question).encode() + b"\n")
            answer = self._heard(limits.GATEWAY_ANSWER_S)
            if problem := answer.get("problem"):
                text = f"the gateway {self._name}: {_printable(problem)}"
                raise SwitchError(text, hint=_printable(answer.get("remedy", "")))
            route, used = _texts([answer.get("route"), answer.get("used")])
        except (OSError, ValueError, TypeError) as error:
            raise self._failed(str(error)) from error
        return route, used

    def _started(self) -> subprocess.Popen[bytes]:
        try:
            user, there = host.split(self._name)
        except UsageError as error:
            raise SwitchError(f"{self._name!r} is no name of a gateway") from error
        words = ["ssh", *(f"-o{option}" for option in program.OPTIONS)]
        words += [f"-oConnectTimeout={limits.GATEWAY_CONNECT_S:g}", *([f"-l{user}"] if user else [])]
        try:
            return subprocess.Popen(
                [*words, "--", there, COMMAND],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=os.environ | program.ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise SwitchError(f"the ssh program cannot be started: {error.strerror}") from error

    def _heard(self, within_s: float) -> dict[str, Any]:
        """The next line. :raises ValueError, OSError: there is none, or it makes no sense."""
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + within_s
        while b"\n" not in self._unread:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([descriptor], [], [], left_s)[0]:
                raise ValueError(f"no answer within {within_s:g} s")
            if not (more := os.read(descriptor, _MOST_BYTES)) or len(self._unread) > _MOST_BYTES:
                raise ValueError("it has ended")
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        found = json.loads(line)
        if not isinstance(found, dict):
            raise ValueError("it says something else than it should")
        # Too little by as long as the answer took: then a change ends to be made a little earlier.
        self._clock_ahead_s = float(found.get("now", "?")) - boot_time()
        return found

    def _failed(self, why: str) -> SwitchError:
        """It is of no use any more."""
        self.close()
        text = os.pread(self._said.fileno(), _MOST_BYTES, 0).decode(errors="replace")
        said = [_printable(line) for line in text.splitlines() if line.strip()][-5:]
        what = f"the gateway {self._name} cannot be asked: {_printable(said[-1] if said else why)}"
        return SwitchError(what, hint=_HINT.format(name=self._name), details=[why, *said])

    def close(self) -> None:
        """End it; may be called twice."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def boot_time() -> float:
    """What the time of a change is counted by, s; it goes on while a machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _texts(found: Any) -> list[str]:
    """:raises ValueError: they are none."""
    if not isinstance(found, list) or not all(isinstance(one, str) and len(one) < 100 for one in found):
        raise ValueError("it says something else than it should")
    return found


def _printable(text: Any) -> str:
    return "".join(one if one.isprintable() else "?" for one in str(text)[:500])
