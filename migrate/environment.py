"""What driver and agent need of the environment that they are started in, made so first of all.

A shell, cron, sshd or a service manager may have given us anything: few descriptors, no PATH, a locale of another
encoding, a umask that hides our files from ourselves. What the process that moves has of these is its own, and
comes from the images.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pwd
import resource
import sys
from pathlib import Path

from migrate import standard_streams

_DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
#: Limits that say how much one may have, and end or break a program that wants more.
_LIMITS = (resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_CPU)
_MOST_DESCRIPTORS = 1 << 20
#: How long a thread of ours computes when another one has something to do. Python's usual 5 ms, for which who comes
#: back from a system call may wait each time, are a tenth of what a small process is frozen for.
_SWITCH_S = 0.0005
_LEAST_FILE_BYTES = 64 << 20
#: Descriptors that we have at once, whatever moves.
LEAST_DESCRIPTORS = 200
#: A file: an image of CRIU's, of a small process. Addresses: our threads, with the stack and arena of each. Time of
#: a processor, at whose end the kernel kills: what reads, compares and copies very much memory.
_LEAST = (
    (resource.RLIMIT_NOFILE, LEAST_DESCRIPTORS, "no process may have more than {} files open (ulimit -n)"),
    (resource.RLIMIT_FSIZE, _LEAST_FILE_BYTES, "no file may be larger than {} bytes (ulimit -f)"),
    (resource.RLIMIT_AS, 1 << 30, "no process may have more than {} bytes of addresses (ulimit -v)"),
    (resource.RLIMIT_CPU, 3600, "no process may have a processor for more than {} s (ulimit -t)"),
)
_NR_OPEN = Path("/proc/sys/fs/nr_open")


def prepare(*, again: bool = False) -> set[int]:
    """Do it; which of the standard streams were closed.

    :param again: this process is our program alone, and may be started again to use UTF-8 for names.
    """
    closed = standard_streams.open_closed()
    if again:
        _use_utf8()
    sys.setswitchinterval(_SWITCH_S)
    _raise_limits()
    _keep_byte_code_whole()
    _set_umask()
    _set_path()
    _set_home()
    return closed


def settled() -> None:
    """All is loaded and made that will be needed: the garbage collector passes over it from now on.

    A look at all of it takes 30 ms, and might come while a process is frozen.
    """
    gc.freeze()


def most_descriptors() -> int:
    """How many descriptors this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def problems() -> list[str]:
    """Sentences: which limits are still so small that nothing can be done."""
    return [
        text.format(value)
        for kind, least, text in _LEAST
        if (value := resource.getrlimit(kind)[0]) != resource.RLIM_INFINITY and value < least
    ]


def _use_utf8() -> None:
    """Names of files go to the other host, so both have to read them alike."""
    if sys.getfilesystemencoding().lower() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    with contextlib.suppress(OSError):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _raise_limits() -> None:
    """As far as root may: every connection of the process is borrowed at once, and images may be large."""
    for kind in _LIMITS:
        _raise(kind, resource.RLIM_INFINITY)
    with contextlib.suppress(OSError, ValueError):
        most = int(_NR_OPEN.read_text())
        _raise(resource.RLIMIT_NOFILE, max(most_descriptors(), min(_MOST_DESCRIPTORS, most)))


def _keep_byte_code_whole() -> None:
    """Python 3.11 does not notice that a file of byte code was cut short, and fails for it ever after.

    Source: importlib._bootstrap_external._write_atomic(); https://github.com/python/cpython/issues/126606.
    """
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if largest != resource.RLIM_INFINITY and largest < _LEAST_FILE_BYTES:
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def _raise(kind: int, wanted: int) -> None:
    """Both limits to *wanted*, or, for a root without CAP_SYS_RESOURCE, the soft one to the hard one."""
    hard = resource.getrlimit(kind)[1]
    for value in (wanted, hard):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (value, value))
            return


def _set_umask() -> None:
    """We can read what we make, and nobody else can write it."""
    os.umask((os.umask(0o077) | 0o022) & ~0o700)


def _set_path() -> None:
    """ssh starts the agent without /usr/sbin, where CRIU is."""
    known = [one for one in os.environ.get("PATH", "").split(":") if one]
    os.environ["PATH"] = ":".join([*known, *(one for one in _DIRECTORIES if one not in known)])


def _set_home() -> None:
    """Where HOME is none, that of the user, as for OpenSSH: keys and known hosts are there."""
    if not Path(os.environ.get("HOME") or "/nonexistent").is_dir():
        with contextlib.suppress(KeyError):
            os.environ["HOME"] = pwd.getpwuid(os.geteuid()).pw_dir
