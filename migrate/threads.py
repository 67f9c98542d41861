"""Starts a thread; where this host has no room for another one, says so as every other error is said."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from migrate.errors import KernelError

P = ParamSpec("P")
T = TypeVar("T")


#: Of limits and control groups.
_HINT = "Look for a limit: ulimit -v, ulimit -u, and the control group's memory.max and pids.max."


def start(thread: threading.Thread) -> None:
    """Start *thread*.

    :raises KernelError: there is no memory for its stack, or a limit of processes; it does not run.
    Source: CPython thread_PyThread_start_new_thread(): a bare RuntimeError; man pthread_create(3) EAGAIN.
    """
    try:
        thread.start()
    except RuntimeError as error:
        if thread.ident is not None:
            raise  # it was started before
        raise KernelError(f"no other thread could be started ({thread.name})", hint=_HINT) from error


def submit(
    executor: ThreadPoolExecutor, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> Future[T]:
    """Have *executor*, which is not shut down, make the call.

    :raises KernelError: as :func:`start`; the call is not made.
    """
    try:
        return executor.submit(call, *args, **kwargs)
    except RuntimeError as error:
        raise KernelError("no other thread could be started", hint=_HINT) from error
