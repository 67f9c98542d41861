"""Makes one system call of the library's fail, the n-th, whichever that is; underneath it, without its knowledge.

Two kinds: calls that then have no effect, and the kernel's answers to a batch of rules, of which nobody knows
afterwards what has become (in Python also when a signal's handler raises in that moment).

Python's socket class is replaced method by method, so that it does not matter which function of the library
makes the call; also ioctl, the calls by ctypes that name a socket, and what reads a descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

#: What the kernel says for reasons of its own, and the library nowhere expects.
ERROR = errno.EIO
_METHODS = (
    *("setsockopt", "getsockopt", "bind", "connect", "connect_ex", "send", "sendto", "sendmsg", "sendall"),
    *("recv", "recv_into", "recvfrom", "recvmsg", "shutdown", "getsockname", "getpeername"),
)


class Calls:
    """Counts the calls; the one with the number *fails* fails.

    :ivar failed: which that was, "" as long as it was none.
    :ivar error: what the library made of it.
    """

    def __init__(self, fails: int, answers: bool) -> None:
        self._answers = answers
        self.count, self.fails, self.failed, self.error = 0, fails, "", ""

    def __repr__(self) -> str:
        return self.error or self.failed

    def wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def one(*arguments: Any, **named: Any) -> Any:
            is_answer = name == "recv" and arguments[0].family == socket.AF_NETLINK
            if is_answer != self._answers:
                return call(*arguments, **named)
            self.count += 1
            if self.count == self.fails:
                self.failed = f"{name}{arguments[1:4]}"
                raise OSError(ERROR, os.strerror(ERROR))
            return call(*arguments, **named)

        return one


@contextlib.contextmanager
def nth_call_fails(number: int, answers: bool) -> Iterator[Calls]:
    """While the block runs; *number* counts from 1. *answers*: which kind."""
    calls = Calls(number, answers)
    with pytest.MonkeyPatch.context() as patch:
        for name in _METHODS:
            method = calls.wrapped(name, getattr(socket.socket, name))
            patch.setattr(socket.socket, name, method, raising=False)
        patch.setattr(fcntl, "ioctl", calls.wrapped("ioctl", fcntl.ioctl))
        patch.setattr(os, "read", calls.wrapped("read", os.read))
        yield calls
