"""The table of options against itself, Python's numbers, and the kernel's own list."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tcpcp.record import option_names
from tcpcp.record.option_names import OPTIONS
from tcpcp.record.options_left_out import NOT_CARRIED

#: Debian package linux-libc-dev.
HEADERS = Path("/usr/include")
#: File -> how the names of its options begin, and those that begin so and are no options but values, flags,
#: sizes or kinds of ancillary data.
FILES = {
    "asm-generic/socket.h": ("SO_", r""),
    "linux/tcp.h": (
        "TCP_",
        r"MSS_DEFAULT|MSS_DESIRED|REPAIR_O(N|FF|FF_NO_WP)|MD5SIG_(MAXKEYLEN|FLAG_\w+)|AO_(MAXKEYLEN|KEYF_\w+)"
        r"|RECEIVE_ZEROCOPY_FLAG_\w+|ACCECN_\w+",
    ),
    "linux/in.h": ("IP_", r"PMTUDISC_\w+|DEFAULT_MULTICAST_\w+"),
    "linux/in6.h": ("IPV6_", r"(FL_[AFS]|FLOWINFO|PRIORITY|TLV|PMTUDISC|PREFER_SRC)_(?!SEND|MGR)\w+"),
}


def options_of(header: str) -> dict[str, int | None]:
    """Options a header defines; the number is None where it is another name's."""
    begin, no_options = FILES[header]
    lines = re.findall(rf"^#define\s+({begin}\w+)[ \t]+(\S+)", (HEADERS / header).read_text(), re.MULTILINE)
    return {
        name: int(value) if value.isdigit() else None
        for name, value in lines
        if not re.fullmatch(begin + f"({no_options})", name)
    }


@pytest.mark.parametrize("header", sorted(FILES))
def test_every_option_of_the_kernel_is_carried_or_left_out_for_a_reason(header: str) -> None:
    found = options_of(header)
    assert len(found) > 25
    assert [name for name in found if name not in OPTIONS and name not in NOT_CARRIED] == []


@pytest.mark.parametrize("header", sorted(FILES))
def test_numbers_are_the_kernels(header: str) -> None:
    found = options_of(header)
    if (
        header == "asm-generic/socket.h"
    ):  # here the plain names are expressions that choose by the size of a time
        found |= {name: found[f"{name}_OLD"] for name in ("SO_RCVTIMEO", "SO_SNDTIMEO")}
        found |= {name: found[f"{name}_OLD"] for name in ("SO_TIMESTAMP", "SO_TIMESTAMPNS")}
    compared = [name for name in found if name in OPTIONS]
    assert {name: OPTIONS[name].number for name in compared} == {name: found[name] for name in compared}


def test_none_is_both_carried_and_left_out() -> None:
    assert OPTIONS.keys() & NOT_CARRIED.keys() == set()


def test_numbers_agree_with_this_machine() -> None:
    for name, option in OPTIONS.items():
        here = getattr(socket, name, None)
        assert here is None or here == option.number, name


def test_defaults_are_in_range() -> None:
    for option in OPTIONS.values():
        if option.default is not None:
            assert option.problem(option.default) is None, option.name


def test_what_can_be_set_can_be_reported() -> None:
    for option in OPTIONS.values():
        ends = [option.settable(option.minimum), option.settable(option.maximum)]
        assert option.minimum <= ends[0] < ends[1] <= option.maximum, option.name
        assert all(map(option.is_settable, ends)), option.name
        assert {option.is_settable(option.minimum), option.is_settable(option.maximum)} == {True} or (
            option.takes is not None
        )


def test_the_nearest_value_that_can_be_set() -> None:
    idle = OPTIONS["TCP_KEEPIDLE"]
    assert [idle.settable(value) for value in (-5, 0, 1, 7200, 32767, 86400)] == [1, 1, 1, 7200, 32767, 32767]
    assert idle.problem(86400) is None
    assert idle.problem(2**31 - 1) is not None


@pytest.mark.parametrize(
    ("options", "ipv6_socket", "word"),
    (
        ({"TCP_NODELAY": 2}, False, "must be 0 to 1"),
        ({"TCP_NODELAY": -1}, False, "must be 0 to 1"),
        ({"TCP_KEEPIDLE": 2**31 - 1}, False, "TCP_KEEPIDLE"),
        ({"TCP_KEEPCNT": 256}, False, "must be 0 to 255"),
        ({"SO_PRIORITY": 2**32}, False, "SO_PRIORITY"),
        ({"SO_PEEK_OFF": -2}, False, "must be -1 to"),
        ({"IPV6_TCLASS": 1}, False, "IPv4 socket"),
        ({"SO_ATTACH_FILTER": 1}, True, "not an option"),
        ({"SO_BUF_LOCK": 1}, True, "SO_SNDBUF"),
        ({"SO_BUF_LOCK": 3, "SO_SNDBUF": 4608}, True, "SO_RCVBUF"),
    ),
)
def test_problems(options: dict[str, int], ipv6_socket: bool, word: str) -> None:
    (problem,) = option_names.problems(options, ipv6_socket=ipv6_socket)
    assert word in problem


@pytest.mark.parametrize(
    "options",
    (
        {"TCP_NODELAY": 1, "SO_BUF_LOCK": 2, "SO_RCVBUF": 4096, "IPV6_TCLASS": 255},
        # As a connection has them that the kernel tunes, or an administrator keeps very small.
        {"SO_RCVBUF": 33554432, "SO_SNDBUF": 16384},
        {"SO_RCVBUF": 1, "SO_SNDBUF": 1},
    ),
)
def test_nothing_wrong(options: dict[str, int]) -> None:
    assert list(option_names.problems(options, ipv6_socket=True)) == []
