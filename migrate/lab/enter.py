"""Runs a program inside a host of the lab: in the foreground, or detached.

A program of its own as well (``python -I -S enter.py exec|spawn|serve ...``); the command imports it and calls
:func:`run` or :func:`spawn` directly. It is started often, so it imports little: pathlib and typing would double
its 25 ms.

All namespaces are entered at once through a pidfd of the host's init, and its start time is compared
after the pidfd is open, so a reused PID is never entered. Source: setns(2), since Linux 5.8.
"""

import ctypes
import errno
import fcntl
import os
import select
import signal
import sys
from collections.abc import Callable

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
CLONE_NEWCGROUP = 0x2000000
ALL_NAMESPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP
PR_SET_PDEATHSIG = 1
SI_KERNEL = 0x80

#: What starts this as a program of its own.
PROGRAM = [sys.executable, "-I", "-S", __file__]

#: The first order to a keeper; the others are numbers of signals.
BEGIN = b"\0"

EXIT_LAB = 125
EXIT_CANNOT_EXECUTE = 126
EXIT_NOT_FOUND = 127

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: What a login on another machine would set; of the caller's environment only :data:`PASSED_ON` comes.
ENVIRONMENT = {
    "PATH": PATH,
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
}
PASSED_ON = ("TERM",)
FORWARDED = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
}

libc = ctypes.CDLL(None, use_errno=True)


def stat_fields(pid: int) -> list[str]:
    """Return what proc(5) numbers from 3 in /proc/PID/stat; nothing if there is no such process."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except FileNotFoundError:
        return []
    try:
        return os.read(descriptor, 4096).decode(errors="replace").rpartition(")")[2].split()
    except ProcessLookupError:
        return []
    finally:
        os.close(descriptor)


def start_ticks(pid: int) -> int | None:
    """Return when process *pid* started, in clock ticks since boot; None if it is gone or a zombie."""
    fields = stat_fields(pid)
    return None if not fields or fields[0] in "ZX" else int(fields[19])


def be_called(name: bytes) -> None:
    """Have ps show *name* for this process, as far as there is room.

    Source: proc(5), arg_start and arg_end of /proc/PID/stat: where the kernel reads the command line from.
    """
    begin, end = map(int, stat_fields(os.getpid())[45:47])
    ctypes.memset(begin, 0, end - begin)
    ctypes.memmove(begin, name, min(len(name), end - begin - 1))


def setns(descriptor: int, namespaces: int) -> None:
    """Move the calling thread; for a PID namespace, its future children."""
    if libc.setns(descriptor, namespaces) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def enter(init_pid: int, init_ticks: int) -> None:
    """Enter all namespaces of the host whose init is *init_pid*, started at *init_ticks*.

    :raises ProcessLookupError: that init is gone; nothing has changed.
    """
    pidfd = os.pidfd_open(init_pid)
    if start_ticks(init_pid) != init_ticks:
        raise ProcessLookupError(f"no init {init_pid}")
    setns(pidfd, ALL_NAMESPACES)
    os.close(pidfd)
    os.chdir("/")
    os.umask(0o022)


def execute(command: list[str]) -> int:
    """Execute *command* in this process; returns only on failure, with the errno."""
    if not command[0]:
        return errno.ENOENT  # As for a shell; Python has another error for it.
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # Python ignores these two, and a program that is executed would go on ignoring them.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvpe(command[0], command, ENVIRONMENT | passed_on)
    except OSError as error:
        return error.errno or 1


def failure(command: list[str], number: int) -> int:
    """Say why *command* was not executed; return the exit status a shell would give."""
    sys.stderr.write(f"migrate-lab: cannot execute {command[0]}: {os.strerror(number)}\n")
    sys.stderr.flush()
    return EXIT_NOT_FOUND if number == 2 else EXIT_CANNOT_EXECUTE


def keep(command: list[str], orders: int, answer: int) -> None:
    """In the keeper of *command*: run it, pass on the signals in *orders*, write its wait status to *answer*.

    The first order is to begin. The end of *orders* is the caller's: the command is killed. (The keeper's
    end kills it, too.)
    """
    be_called(b"lab keeper")  # else pgrep -f, run here, would find the keeper of itself
    if not os.read(orders, 1):
        return
    child = os.fork()
    if child == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os._exit(failure(command, execute(command)))
    end = os.pidfd_open(child)
    poll = select.poll()
    for descriptor in (orders, end):
        poll.register(descriptor, select.POLLIN)
    while end not in {ready for ready, _ in poll.poll()}:
        numbers = os.read(orders, 64)
        if not numbers:
            poll.unregister(orders)
        for number in numbers or (signal.SIGKILL,):
            signal.pidfd_send_signal(end, number)
    os.write(answer, os.waitpid(child, 0)[1].to_bytes(2, "big"))


def start_keeper(command: list[str], orders: int, answer: int, orders_end: int = -1) -> None:
    """In the PID namespace entered: have the host's init adopt a keeper of *command*.

    Were it ours, it would fall to the machine's init if we are killed; and one that does not reap, as in many
    containers, would leave a zombie that keeps the host's PID namespace for ever
    (kernel/pid_namespace.c zap_pid_ns_processes()).

    :param orders_end: to be closed there, so that its end is the end of whoever gives orders.
    """
    between = os.fork()
    if between == 0:
        try:
            if os.fork() == 0:
                if orders_end >= 0:
                    os.close(orders_end)
                keep(command, orders, answer)
        except BrokenPipeError:  # nobody asks any more
            pass
        finally:
            os._exit(0)
    os.waitpid(between, 0)


def start_kept(command: list[str]) -> tuple[int, int]:
    """Start *command* in the PID namespace entered; return what takes signals for it and what tells its end."""
    orders, orders_end = os.pipe()
    answer, answer_end = os.pipe()
    start_keeper(command, orders, answer_end, orders_end)
    os.close(orders)
    os.close(answer_end)
    # Only now: whoever hears of the command may kill us, and what stands between would fall to that init, too.
    os.write(orders_end, BEGIN)
    return orders_end, answer


def status_in(answer: bytes) -> int:
    """Return the wait status in a keeper's *answer*; of one that was killed there is none, nor of its command."""
    return int.from_bytes(answer, "big") if answer else signal.SIGKILL


def forward_until_end(orders: int, answer: int) -> int:
    """Write signals that we get to *orders* until *answer* tells a wait status; return that.

    What the terminal sends comes from the kernel and reached the command already.
    """
    fcntl.fcntl(answer, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(answer, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    while True:
        try:
            status = os.read(answer, 2)
        except BlockingIOError:
            info = signal.sigwaitinfo(FORWARDED | {signal.SIGIO})
        else:
            return status_in(status)
        if info.si_signo in FORWARDED and info.si_code != SI_KERNEL:
            os.write(orders, bytes([info.si_signo]))


def end_like(status: int) -> int:
    """Return the exit status in wait status *status*; after a signal, die of the same one."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    return os.waitstatus_to_exitcode(status)


def run(init_pid: int, init_ticks: int, command: list[str]) -> int:
    """Run *command* in the host with the caller's standard streams; return its exit status.

    The caller changes its namespaces for good. If it is killed, so is the command.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    enter(init_pid, init_ticks)
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED | {signal.SIGIO})
    return end_like(forward_until_end(*start_kept(command)))


def become_detached(log: str | None, command: list[str], errors: int) -> None:
    """In the process to be: nothing of the caller's stays open; *errors* gets errno, and the name of a file."""
    try:
        os.setsid()
        for each in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(each, signal.SIG_DFL)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        output = os.open(log, flags, 0o644) if log else os.open("/dev/null", os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, errors)
        os.closerange(errors + 1, 65536)
        os.write(errors, str(execute(command)).encode())
    except OSError as error:
        os.write(errors, f"{error.errno} ".encode() + os.fsencode(error.filename or ""))
    os._exit(1)


def not_detached(said: str, command: list[str]) -> int:
    """Say why *command* was not started, as :func:`detach` has *said* it; return the exit status."""
    number, _, file = said[1:].partition(" ")
    if not file:
        return failure(command, int(number or 5))
    sys.stderr.write(f"migrate-lab: cannot write its output to {file}: {os.strerror(int(number))}\n")
    sys.stderr.flush()
    return EXIT_LAB


def detach(log: str | None, command: list[str], answer: int) -> None:
    """In a child inside the PID namespace: fork *command*, say its PID there, or why it failed, and end.

    The end of this process hands the program to the host's init, which reaps it later. (The children of a
    process outside would go to the machine's init.)
    """
    errors, errors_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        become_detached(log, command, errors_end)
    os.close(errors_end)
    # End of file: the exec closed the other end, or the process died of something else before it.
    problem = os.read(errors, 4096)
    os.write(answer, b"!" + problem if problem else str(pid).encode())
    os._exit(0)


def spawn(init_pid: int, init_ticks: int, log: str | None, command: list[str]) -> int:
    """Start *command* detached in the host and print its PID there, once it has been executed.

    :param log: file in the host for standard output and error, emptied first; None is /dev/null.
    :return: 0; 126 or 127 if it cannot be executed, 125 if there is no such log, with a message on standard error.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    enter(init_pid, init_ticks)
    answer, answer_end = os.pipe()
    child = os.fork()
    if child == 0:
        detach(log, command, answer_end)
    os.close(answer_end)
    text = os.fsdecode(os.read(answer, 4096))
    os.waitpid(child, 0)
    if text.startswith("!") or not text:
        return not_detached(text, command)
    return tell_pid(text)


def tell_pid(text: str) -> int:
    """Print the PID of what runs detached, on standard error if need be; return the exit status."""
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Where Python will try again.
        sys.stderr.write(f"migrate-lab: it runs as PID {text}; standard output: {error.strerror}\n")
        sys.stderr.flush()
        return EXIT_LAB
    return 0


def begin_kept(init_pid: int, init_ticks: int, command: list[str], descriptors: list[int]) -> None:
    """In a child of :func:`serve`: start *command* with a keeper as its *descriptors* say, and end."""
    *streams, orders, answer = descriptors
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    problem = entering(lambda: enter(init_pid, init_ticks))
    if problem:
        os.write(answer, (problem << 8).to_bytes(2, "big"))
    else:
        start_keeper(command, orders, answer)


def serve(requests: int) -> int:
    """Run commands in hosts for whoever has the other end of the socket *requests*, until that is closed.

    A request is in JSON: PID and start of the host's init, the command; with it come five descriptors: standard
    streams, where orders to its keeper come from and where the wait status goes, see :func:`keep`. It is answered
    by a byte once the first order, to begin, may be given.
    """
    import json
    import socket

    asked = socket.socket(fileno=requests)
    while True:
        data, descriptors, _, _ = socket.recv_fds(asked, 1 << 20, 5, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return 0
        child = os.fork()
        if child == 0:
            try:
                asked.close()
                pid, ticks, command = json.loads(data)
                begin_kept(pid, ticks, command, descriptors)
            finally:
                os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        os.waitpid(child, 0)
        asked.send(BEGIN)


def entering(act: Callable[[], int | None]) -> int:
    """Do *act*; return what it returns, or the exit status of a host that cannot be entered, said why."""
    try:
        return act() or 0
    except ProcessLookupError:
        sys.stderr.write("migrate-lab: the host has ended; migrate-lab up starts the lab anew\n")
    except PermissionError as error:
        sys.stderr.write(f"migrate-lab: {error}; entering a host needs root\n")
    sys.stderr.flush()
    return EXIT_LAB


def main() -> int:
    """``exec PID TICKS COMMAND...``, ``spawn PID TICKS LOG COMMAND...`` (empty LOG: none) or ``serve SOCKET``."""
    mode, *rest = sys.argv[1:]
    if mode == "serve":
        return serve(int(rest[0]))
    pid, ticks = map(int, rest[:2])
    if mode == "spawn":
        return entering(lambda: spawn(pid, ticks, rest[2] or None, rest[3:]))
    return entering(lambda: run(pid, ticks, rest[2:]))


if __name__ == "__main__":
    sys.exit(main())
