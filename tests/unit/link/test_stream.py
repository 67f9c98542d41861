"""The stream over file descriptors, as the agent uses it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from migrate.link.stream import FdStream

DEADLINE_S = 10.0


def test_from_stdio_keeps_prints_and_children_out_of_the_stream() -> None:
    code = """
import os, subprocess, sys
from migrate.link.stream import FdStream
stream = FdStream.from_stdio()
print("a print", flush=True)
subprocess.run(["sh", "-c", "echo a child; cat"], check=True)
stream.write(stream.read(100)[::-1])
stream.close()
stream.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"abc", capture_output=True, timeout=DEADLINE_S, check=True
    )
    assert done.stdout == b"cba"
    assert done.stderr == b"a print\na child\n"


def test_close_frees_a_reader_and_a_writer() -> None:
    (r, other_w), (other_r, w) = os.pipe(), os.pipe()
    stream = FdStream(r, w)
    ended: list[object] = []

    def write() -> None:
        with pytest.raises(OSError, match="closed"):
            stream.write(b"x" * (1 << 20))
        ended.append("writer")

    threads = [threading.Thread(target=lambda: ended.append(stream.read(1))), threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    assert os.read(other_r, 1) == b"x"
    stream.close()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert sorted(map(str, ended)) == ["b''", "writer"]
    for fd in (r, w):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    os.close(other_r)
    os.close(other_w)


def test_write_to_an_end_that_is_gone() -> None:
    r, w = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    stream = FdStream(null, w)
    os.close(r)
    with pytest.raises(BrokenPipeError):
        stream.write(b"x")
    stream.close()
