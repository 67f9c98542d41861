"""CRIU over RPC: one request as a generator of its notifications.

A worker (``criu swrk``) is a child process that serves one request over a socket pair. While it works
it stops at stages, each a notification, and waits for our answer; until ``post-dump`` is answered a
dumped tree stays frozen, until ``post-restore`` is answered a restored tree has not run an instruction.
``for stage in worker.dump(...)`` answers yes to a stage by asking for the next one and no by closing the
generator, so an exception in the loop makes CRIU undo what it did.

Source: criu/cr-service.c, images/rpc.proto; https://criu.org/RPC.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from migrate import limits
from migrate.criu import breakpoints, log, own_namespace, starting
from migrate.criu.begun_note import BegunNote
from migrate.criu.own_namespace import Namespace
from migrate.criu.setup import program_link
from migrate.errors import MAKE_ROOM, CriuError
from migrate.processes import identity
from migrate.processes.surroundings import with_personality
from migrate.watch import first_readable, nothing

#: CRIU's answer must fit: it never sends more in one message.
MESSAGE_BYTES = 1 << 16
#: A deleted file goes along inside the images, in the gap, up to this size, of which CRIU is told in 32 bits
#: (criu/files-reg.c dump_ghost_file(), images/rpc.proto).
GHOST_LIMIT_BYTES = (4 << 30) - 512
#: Errors only. The tasks that CRIU builds write its log themselves, under their own limit of the size of files
#: (RLIMIT_FSIZE): a line too much would be a SIGXFSZ that waits for them, and most would die of it when they run.
#: Source: criu/include/log.h, criu/pie/restorer.c; man setrlimit(2).
_LOG_LEVEL = 1
GET_CRIU = "Install CRIU 4.2 or newer with its pycriu: migrate-criu, which comes with migrate, does that."
_NO_SPACE = os.strerror(errno.ENOSPC)


def program() -> str | None:
    """Path of the ``criu`` to use: $MIGRATE_CRIU, the one beside the command migrate, or the one on PATH."""
    chosen = os.environ.get("MIGRATE_CRIU")
    if chosen:
        return chosen
    beside = program_link()
    return str(beside) if beside.exists() else shutil.which("criu")


@dataclass(frozen=True, slots=True)
class Stage:
    """CRIU waits at a stage.

    :ivar name: e.g. ``"post-dump"``, ``"post-restore"``.
    :ivar pid: the restored root task as this host numbers it, where CRIU says it.
    """

    name: str
    pid: int | None = None


def _no_more(opts: Any) -> None:
    """Nothing else."""


@dataclass(slots=True)
class Options:
    """What a dump or a restore is asked to do.

    :ivar images: directory of the images; private to root.
    :ivar timeout_s: for each stage; CRIU's own limit for freezing as well.
    :ivar images_fd: it has inherited this as a descriptor of that directory, whose path it may not see.
    :ivar page_server_fd: of a dump: where CRIU sends the pages instead of writing them; it has inherited it.
    :ivar more: fills in what else the request's criu_opts are to say; called last.
    """

    images: Path
    log_file: str
    timeout_s: int = 60
    images_fd: int | None = None
    page_server_fd: int | None = None
    more: Callable[[Any], None] = _no_more


class Worker:
    """One ``criu swrk`` process, started before it is needed.

    :param avoid_pids: run in a new PID namespace, whose own processes stay off these numbers.
    :param within: run in that namespace, of a tree that is to be dumped.
    :param mark: ``NAME=VALUE`` for its environment, by which its helpers can be found if it dies.
    :param inherit: further descriptors that CRIU gets, under their numbers.
    :param personality: for it and what it restores, None: ours; see :mod:`migrate.processes.surroundings`.
    :param epolls_known: of a dump: all that epolls of the tree watch is what the number says, CRIU need not ask.
    :ivar heed: called again and again while we wait for CRIU; what it raises ends the wait.
    :ivar namespace_init: the init of that namespace as this host numbers it, or 0.
    :raises CriuError: the program is missing or cannot be started.
    """

    def __init__(
        self,
        binary: str | None = None,
        *,
        role: str = "origin",
        avoid_pids: list[int] | None = None,
        within: Namespace | None = None,
        mark: str = "",
        inherit: Sequence[int] = (),
        personality: int | None = None,
        epolls_known: bool = False,
        heed: Callable[[], None] = nothing,
    ) -> None:
        self.role, self.heed = role, heed
        self.namespace_init = 0
        path = binary or program()
        if path is None:
            raise CriuError("criu is not installed", hint=GET_CRIU)
        self._begun = BegunNote()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        before = [
            *starting.namespaced(avoid_pids),
            *starting.telling(epolls_known),
            *starting.entering(within),
        ]
        command = [*before, path, "swrk", str(theirs.fileno())]
        inherit = [theirs.fileno(), *inherit, *([within.descriptors["mnt"]] if within else [])]
        try:
            with theirs, with_personality(personality), own_namespace.children_in(within):
                self.process = starting.started(command, inherit, role, mark, bool(avoid_pids))
            self._ended = os.pidfd_open(self.process.pid)
        except OSError as error:
            ours.close()
            raise CriuError(f"cannot start {path}: {error.strerror}") from error
        self._event = breakpoints.ready()
        if role == "origin":
            self._spare()
        if avoid_pids:
            self.namespace_init = self._read_init()

    def _spare(self) -> None:
        """Who needs memory takes it from somebody else: a task that CRIU executes its own code in as it is killed
        may die of that (tests/facts/test_criu.py)."""
        with contextlib.suppress(OSError):  # it works without
            Path(f"/proc/{self.process.pid}/oom_score_adj").write_text("-1000")

    def _read_init(self) -> int:
        assert self.process.stdout is not None
        what = "prepare"
        try:
            with self.process.stdout as output:
                self._wait_for(output.fileno(), time.monotonic() + limits.NAMESPACE_S, what)
                line = output.readline().strip()
            if not line.isdigit():
                raise CriuError("no new PID namespace could be made")
        except BaseException:
            self.close(grace_s=0.0)
            raise
        return int(line)

    @property
    def own_numbers(self) -> bool:
        """Whether what it restores has a PID namespace of its own."""
        return bool(self.namespace_init)

    @property
    def pid(self) -> int:
        """The worker's process."""
        return self.process.pid

    @property
    def start(self) -> int:
        """When it started, see :func:`migrate.processes.identity.identity`.

        :raises CriuError: it has ended already.
        """
        with contextlib.suppress(ProcessLookupError):
            if self.process.poll() is None:
                return identity.identity(self.process.pid)[1]
        raise CriuError("CRIU ended before it was needed", hint="Look for what killed it, and try again.")

    def version(self) -> tuple[int, int, int]:
        """The program's version; the worker is used up."""
        rpc = _rpc()
        reply = self._ask(rpc.criu_req(type=rpc.VERSION), time.monotonic() + limits.VERSION_S, "version")
        return reply.version.major_number, reply.version.minor_number, reply.version.sublevel

    def dump(self, pid: int, options: Options) -> Generator[Stage, bool | None, None]:
        """Dump the tree below *pid* and stop at each stage.

        The tasks are frozen from after ``pre-dump`` until ``post-dump`` is answered; answered with yes
        they are killed, with no (or when we die) they run on. TCP is left alone: no repair, no filter.

        :raises CriuError: CRIU gave up; the tree runs on.
        """
        rpc = _rpc()
        request = rpc.criu_req(type=rpc.DUMP)
        self._fill(request.opts, options)
        request.opts.pid = pid
        request.opts.tcp_close = True
        request.opts.timeout = options.timeout_s
        request.opts.ghost_limit = GHOST_LIMIT_BYTES
        if options.page_server_fd is not None:
            request.opts.ps.fd = options.page_server_fd
        options.more(request.opts)
        return self._run(request, options)

    def restore(self, options: Options) -> Generator[Stage, bool | None, None]:
        """Restore the tree of the images and stop at each stage.

        :raises CriuError: CRIU gave up and has killed what it had built.
        """
        rpc = _rpc()
        request = rpc.criu_req(type=rpc.RESTORE)
        self._fill(request.opts, options)
        request.opts.tcp_established = True
        options.more(request.opts)
        return self._run(request, options)

    def fileno(self) -> int:
        """Our end of the socket over which it waits for answers: while somebody has it open, it waits."""
        return self._socket.fileno()

    def leave(self) -> bool:
        """Let it wait on, for somebody else who has the socket; whether it is there to do so."""
        self._socket.close()
        self._begun.remove()
        self._forget_end()
        return self.process.poll() is None

    def keep(self) -> None:
        """The tree that it has built is about to run: from now on that goes to its end although we die.

        It does by itself once ``pre-resume`` is reached.
        """

    def problems(self) -> list[str]:
        """When the tree runs: sentences, what went wrong since."""
        return []

    def check(self) -> None:
        """Return while the worker lives.

        :raises CriuError: it has ended; says how.
        """
        if self.process.poll() is not None:
            raise self._died("restore" if self.role == "destination" else "dump")

    def close(self, *, grace_s: float = limits.CRIU_CLOSE_S) -> None:
        """Hang up, which makes CRIU undo an unanswered stage, and reap the worker.

        :param grace_s: how long it may take. A dump that is killed can take the process with it.
        """
        self._socket.close()
        try:
            self.process.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=limits.CRIU_CLOSE_S)
        self._begun.remove()
        self._forget_end()

    def _forget_end(self) -> None:
        for one in (self._ended, self._event):
            if one >= 0:
                os.close(one)
        self._ended = self._event = -1

    def _fill(self, opts: Any, options: Options) -> None:
        rpc = _rpc()
        opts.images_dir_fd = -1
        # Not by images_dir_fd: it looks for that in /proc by our PID, which it may not see (criu/cr-service.c).
        fd = options.images_fd
        opts.images_dir = str(options.images) if fd is None else f"/proc/self/fd/{fd}"
        opts.log_file = options.log_file
        opts.log_level = _LOG_LEVEL
        opts.notify_scripts = True
        opts.network_lock = rpc.SKIP
        opts.manage_cgroups_mode = rpc.IGNORE
        opts.file_locks = True
        opts.link_remap = True
        # Datagrams to a socket outside of the tree, by its name. Half of any other connection CRIU refuses to dump.
        opts.ext_unix_sk = True

    def _run(self, request: Any, options: Options) -> Generator[Stage, bool | None, None]:
        rpc = _rpc()
        what = "dump" if request.type == rpc.DUMP else "restore"
        try:
            reply = self._ask(request, self._deadline(options), what)
            while reply.type == rpc.NOTIFY:
                note = reply.notify
                said = yield Stage(note.script, note.pid if note.HasField("pid") else None)
                answer = rpc.criu_req(type=rpc.NOTIFY, notify_success=said is not False)
                reply = self._ask(answer, self._deadline(options), what)
        except CriuError as error:
            error.add_details(log.errors(options.images / options.log_file))
            raise
        if not reply.success:
            details = log.errors(options.images / options.log_file)
            # CRIU's log is in the same place, and ends where the space did.
            full = os.statvfs(options.images).f_bavail == 0
            text = (
                (_NO_SPACE if full else log.sentence(details))
                or reply.cr_errmsg.strip()
                or f"errno {reply.cr_errno}"
            )
            hint = MAKE_ROOM if _NO_SPACE in text else "migrate -v shows the first errors of CRIU's log."
            raise CriuError(f"CRIU could not {what} the process: {text}", hint=hint, details=details)

    @staticmethod
    def _deadline(options: Options) -> float:
        return time.monotonic() + options.timeout_s

    def _ask(self, request: Any, deadline: float, what: str) -> Any:
        try:
            self._socket.send(request.SerializeToString())
            self._wait_for(self._socket.fileno(), deadline, what)
            data = self._socket.recv(MESSAGE_BYTES)
        except OSError as error:
            raise self._ended_in(what, error.strerror) from error
        if not data:
            raise self._ended_in(what)
        reply = parsed(data)
        if reply is None:
            raise CriuError(f"CRIU answered what is no answer ({what})")
        return reply

    def _wait_for(self, descriptor: int, deadline: float, what: str) -> None:
        """Wait until *descriptor* can be read.

        Not by its end alone: CRIU's helpers have copies of the other end, and may outlive it.

        :raises CriuError: CRIU has ended, or *deadline* is over.
        """
        ready = first_readable(descriptor, self._ended, deadline, lambda: self.heed())
        if ready == self._ended:
            raise self._died(what)
        if ready != descriptor:
            raise CriuError(f"CRIU did not answer in time ({what})")

    def _ended_in(self, what: str, why: str | None = "") -> CriuError:
        """It has hung up: since it has died, as a rule, which then shows within a moment."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=limits.HEED_S)
            return self._died(what)
        return CriuError(f"CRIU ended in the middle ({what})" + (f": {why}" if why else ""))

    def _died(self, what: str) -> CriuError:
        status = self.process.wait()
        number = status - 256 if self.namespace_init and status > 128 else status
        how = f"was killed by {signal.Signals(-number).name}" if number < 0 else f"ended with status {status}"
        hint = "Look for what ended it (the kernel's log says whether memory ran out), and try again."
        return CriuError(f"CRIU (process {self.pid}) {how} in the middle ({what})", hint=hint)


def parsed(data: bytes) -> Any:
    """The message criu_resp in *data*, or None: it is none, it is cut, or its texts are not UTF-8."""
    reply = _rpc().criu_resp()
    try:
        reply.ParseFromString(data)
    except DecodeError:
        return None
    # Of these messages the strings are not looked at before, and come as bytes where they are not UTF-8.
    texts = (reply.notify.script, reply.cr_errmsg)
    return reply if reply.IsInitialized() and all(isinstance(text, str) for text in texts) else None


def parsed_request(data: bytes) -> Any:
    """The message criu_req in *data*, which a runtime sent; or None, as :func:`parsed`."""
    request = _rpc().criu_req()
    try:
        request.ParseFromString(data)
    except DecodeError:
        return None
    return request if request.IsInitialized() else None


@contextlib.contextmanager
def worker(binary: str | None = None, *, role: str = "origin") -> Generator[Worker, None, None]:
    """A worker that is hung up and reaped in the end."""
    made = Worker(binary, role=role)
    try:
        yield made
    finally:
        made.close()


def bindings_problem() -> str:
    """What is wrong with the Python part of CRIU, as a sentence; "" when nothing is."""
    try:
        _rpc()
    except CriuError as error:
        return str(error)
    return ""


def _rpc() -> Any:
    """pycriu's messages; imported late, so that `--help` and the library need no CRIU."""
    try:
        from pycriu import rpc_pb2
    except ImportError as error:
        raise CriuError("pycriu is not installed for this Python", hint=GET_CRIU) from error
    return rpc_pb2
