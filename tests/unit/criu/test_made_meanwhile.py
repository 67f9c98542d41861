"""A socket that somebody makes between our look and CRIU's own removal is not lost without a word."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.criu import made_meanwhile
from migrate.errors import CriuError, Taken


def bind(path: Path) -> None:
    """As CRIU does it, whoever has one there."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@contextlib.contextmanager
def listening(*paths: Path) -> Iterator[made_meanwhile.Meanwhile]:
    found = made_meanwhile.Meanwhile(map(str, paths))
    yield found
    found.close()
    found.close()


def test_criu_alone(tmp_path: Path) -> None:
    """A dead one is there already, others are made beside it, and one is in a directory that is not there."""
    bind(tmp_path / "dead")
    paths = [tmp_path / name for name in ("dead", "new")]
    with listening(*paths, tmp_path / "no" / "such") as found, found.require_none():
        for path in (*paths, tmp_path / "other", tmp_path / "other"):
            bind(path)


@pytest.mark.parametrize("by", ["bind", "rename"])
def test_somebody_else(tmp_path: Path, by: str) -> None:
    path = tmp_path / "svc"
    with (
        listening(path, tmp_path / "other") as found,
        pytest.raises(Taken, match=re.escape(f"somebody else has made {path} ")),
        found.require_none(),
    ):
        if by == "bind":
            bind(path)
        else:
            bind(tmp_path / "svc.new")
            (tmp_path / "svc.new").rename(path)
        bind(path)


def failed(path: Path) -> CriuError:
    """What CRIU says when somebody has *path* between its removal and its bind."""
    line = f"(00.1) 7: Error (criu/sk-unix.c:9): Can't bind id 0xe ino 7 addr {path}: Address already in use"
    return CriuError("CRIU could not restore the process", details=["warn", line])


def test_somebody_else_before_criu_binds(tmp_path: Path) -> None:
    path = tmp_path / "svc"
    with (
        listening(path, tmp_path / "other") as found,
        pytest.raises(Taken, match=re.escape(f"somebody else has made {path} ")),
        found.require_none(),
    ):
        bind(path)
        raise failed(path)


@pytest.mark.parametrize("named", ["other", "svc.2", ""])
def test_another_failure(tmp_path: Path, named: str) -> None:
    """CRIU's own words stay where nobody has made the one that it tells of, or it tells of none."""
    path = tmp_path / "svc"
    with listening(path, tmp_path / "other", tmp_path / "svc.2") as found:
        bind(path)
        error = failed(tmp_path / named) if named else CriuError("out of memory")
        with pytest.raises(CriuError) as raised, found.require_none():
            raise error
    assert raised.value is error


def test_nobody_can_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all of the kernel's are in use."""

    class Full:
        @staticmethod
        def inotify_init1(_: int) -> int:
            return -1

        @staticmethod
        def inotify_add_watch(*_: object) -> int:
            return -1

    monkeypatch.setattr(made_meanwhile, "_LIBC", Full)
    with listening(tmp_path / "svc") as found, found.require_none():
        bind(tmp_path / "svc")
        bind(tmp_path / "svc")
