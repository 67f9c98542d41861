from __future__ import annotations

import socket

import pytest

from tcpcp import option_names
from tcpcp.option_names import OPTIONS


def test_numbers_agree_with_this_machine() -> None:
    for name, option in OPTIONS.items():
        here = getattr(socket, name, None)
        assert here is None or here == option.number, name


def test_defaults_are_in_range() -> None:
    for option in OPTIONS.values():
        if option.default is not None:
            assert option.problem(option.default) is None, option.name


@pytest.mark.parametrize(
    ("options", "ipv6_socket", "word"),
    (
        ({"TCP_NODELAY": 2}, False, "must be 0 to 1"),
        ({"TCP_NODELAY": -1}, False, "must be 0 to 1"),
        ({"IPV6_TCLASS": 1}, False, "IPv4 socket"),
        ({"SO_ATTACH_FILTER": 1}, True, "not an option"),
        ({"SO_BUF_LOCK": 1}, True, "SO_SNDBUF"),
    ),
)
def test_problems(options: dict[str, int], ipv6_socket: bool, word: str) -> None:
    (problem,) = option_names.problems(options, ipv6_socket=ipv6_socket)
    assert word in problem


def test_nothing_wrong() -> None:
    options = {"TCP_NODELAY": 1, "SO_BUF_LOCK": 2, "SO_RCVBUF": 4096, "IPV6_TCLASS": 255}
    assert list(option_names.problems(options, ipv6_socket=True)) == []
