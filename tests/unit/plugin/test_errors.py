"""Errors go to another process, or into a copy, as they are."""

from __future__ import annotations

import copy
import pickle

import pytest

from tcpcp import errors
from tcpcp.errors import TcpcpError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TcpcpError)]


def made(kind: type[TcpcpError]) -> TcpcpError:
    if issubclass(kind, errors.KernelError):
        return kind("connect", 111, "10.0.0.1:1 - 10.0.0.2:2")
    if issubclass(kind, errors.IciError):
        return kind(["one is wrong", "another is"])
    return kind("why")


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])  # noqa: S301
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_again(kind: type[TcpcpError], again: object) -> None:
    error = made(kind)
    error.add_note("and more")
    assert callable(again)
    found = again(error)
    assert type(found) is kind and str(found) == str(error)
    assert vars(found) == vars(error)
