"""An ICI with a field that is None, or of another kind, is told as what it is; one that can be read is whole."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from golden_icis import GOLDEN
from hypothesis import given
from strategies import icis

from tcpcp.errors import IciError
from tcpcp.record import whole
from tcpcp.record.ici import Endpoint, Ici, Timestamp

PLAIN = GOLDEN["established"]


def leaves() -> list[str]:
    """Every field, and every field of those that have some."""
    found = []
    for one in dataclasses.fields(Ici):
        value = getattr(PLAIN, one.name)
        inner = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
        found += [one.name, *(f"{one.name}.{part.name}" for part in inner)]
    return found


def without(path: str, value: Any) -> Ici:
    outer, _, inner = path.partition(".")
    if inner:
        value = dataclasses.replace(getattr(PLAIN, outer), **{inner: value})
    return dataclasses.replace(PLAIN, **{outer: value})


@given(icis())
def test_whatever_can_be_read_is_whole(ici: Ici) -> None:
    whole.require([ici])


@pytest.mark.parametrize("path", [one for one in leaves() if one not in ("timestamp", "timestamp.ts_recent")])
@pytest.mark.parametrize("value", (None, 1.5, object()))
def test_a_field_of_another_kind(path: str, value: Any) -> None:
    whole.require([PLAIN])
    with pytest.raises(IciError, match=path):
        whole.require([PLAIN, without(path, value)])


@pytest.mark.parametrize("options", ({"TCP_NODELAY": None}, {1: 1}, {"TCP_NODELAY": "1"}))
def test_options_of_another_kind(options: Any) -> None:
    with pytest.raises(IciError, match="options"):
        whole.require([dataclasses.replace(PLAIN, options=options)])


def test_what_may_be_none() -> None:
    assert PLAIN.timestamp is not None
    for stamp in (None, dataclasses.replace(PLAIN.timestamp, ts_recent=None), Timestamp(2)):
        whole.require([dataclasses.replace(PLAIN, timestamp=stamp)])


def test_all_is_told_at_once() -> None:
    broken = dataclasses.replace(PLAIN, local=Endpoint(None, 80), snd_nxt=None)  # type: ignore[arg-type]
    with pytest.raises(IciError) as caught:
        whole.require([broken])
    assert len(caught.value.problems) == 2
    assert "None:80" in str(caught.value)
