"""The network namespace in which a thread works: this host's, or that of a container, which is entered by its path.

What a migration does with sockets, addresses and packet filters it does in the namespace that its thread is in;
threads and programs that it starts are in the same. A socket stays in the one in which it was made, so a session
that was opened before goes on.

Source: man setns(2), network_namespaces(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

from migrate.errors import KernelError
from tcpcp.criu import namespaces
from tcpcp.errors import KernelError as NotEntered

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
#: Of the thread that asks; where /proc has no such name the kernel has no threads.
_OWN = "/proc/thread-self/ns/net"


@contextlib.contextmanager
def within(path: str) -> Iterator[None]:
    """A ``with`` block in the namespace at *path*; "": in the one that we are in.

    :raises KernelError: there is none at that path, or it cannot be entered.
    """
    if not path:
        yield
        return
    before = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(path)
        try:
            yield
        finally:
            namespaces.enter(before)
    finally:
        os.close(before)


@contextlib.contextmanager
def stay_in_an_empty_one() -> Iterator[None]:
    """As :func:`stay`, in a new namespace in which nothing is, and which goes with the block.

    :raises KernelError: the kernel gives none.
    """
    _home.append(os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC))
    try:
        if _libc.unshare(_CLONE_NEWNET):
            raise _failed("", os.strerror(ctypes.get_errno()))
        try:
            yield
        finally:
            namespaces.enter(_home[-1])
    finally:
        os.close(_home.pop())


def is_there(path: str) -> bool:
    """Whether a network namespace is at *path*."""
    try:
        found = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return namespaces.is_network(found)
    finally:
        os.close(found)


def is_that_of(pid: int, path: str) -> bool:
    """Whether the process *pid* is in the namespace at *path*."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(path), os.stat(f"/proc/{pid}/ns/net"))  # noqa: PTH116
    return False


def is_ours(pid: int) -> bool:
    """Whether the process *pid* is in the namespace that this thread is in."""
    return is_that_of(pid, _OWN)


def _enter(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _failed(path, error.strerror or "") from error
    try:
        namespaces.enter(descriptor)
    except NotEntered as error:
        raise _failed(path, os.strerror(error.errno)) from error
    finally:
        os.close(descriptor)


def _failed(path: str, why: str) -> KernelError:
    return KernelError(
        f"the network namespace {path} cannot be entered: {why}", hint=f"Look at it: ip netns; ls -l {path}"
    )


#: In which namespace this process was before it entered another one; see :func:`stay`.
_home: list[int] = []


@contextlib.contextmanager
def stay(path: str) -> Iterator[None]:
    """As :func:`within`, for the thread that does a migration: :func:`home` leads back from there meanwhile."""
    if not path:
        yield
        return
    _home.append(os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC))
    try:
        with within(path):
            yield
    finally:
        os.close(_home.pop())


def home() -> contextlib.AbstractContextManager[None]:
    """A ``with`` block in the namespace of this host, wherever :func:`stay` has led."""
    return within(f"/proc/self/fd/{_home[0]}" if _home else "")
