"""Who may ask the helper, and what he may claim."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_address

import pytest
from golden_icis import GOLDEN

from tcpcp.helper import policy
from tcpcp.helper.policy import Allowed, Limits, Rights, parse_grant, parse_rights
from tcpcp.record.ici import Endpoint, Ici

LIMITS = Limits(1024, 4 << 20, 6 << 20, frozenset({"cubic", "reno"}))
NOTHING = Rights()
ALL = Rights((range(1, 65536),), True)
PLAIN = dataclasses.replace(
    GOLDEN["established"],
    local=Endpoint(ip_address("10.0.0.1"), 8080),
    options={"TCP_NODELAY": 1},
    congestion=dataclasses.replace(GOLDEN["established"].congestion, algorithm="cubic"),
    device="",
)


def changed(**values: object) -> Ici:
    return dataclasses.replace(PLAIN, **values)  # type: ignore[arg-type]


REFUSED = {
    "port": (changed(local=Endpoint(PLAIN.local.ip, 80)), "local port 80"),
    "mark": (changed(options={"SO_MARK": 7}), "SO_MARK 7"),
    "priority": (changed(options={"SO_PRIORITY": 7}), "SO_PRIORITY 7"),
    "transparent": (changed(options={"IP_TRANSPARENT": 1}), "IP_TRANSPARENT"),
    "device": (changed(device="eth0"), "SO_BINDTODEVICE eth0"),
    "send buffer": (changed(options={"SO_SNDBUF": (4 << 20) + 1}), "a send buffer"),
    "receive buffer": (changed(options={"SO_RCVBUF": (6 << 20) + 1}), "a receive buffer"),
    "window": (changed(window=dataclasses.replace(PLAIN.window, rcv_wnd=1 << 30)), "a receive buffer"),
    "unsent": (
        changed(send_queue=dataclasses.replace(PLAIN.send_queue, unsent=bytes((4 << 20) + 1))),
        "a send buffer",
    ),
    "congestion": (
        changed(congestion=dataclasses.replace(PLAIN.congestion, algorithm="dctcp")),
        "congestion control dctcp",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_a_privilege(name: str) -> None:
    ici, expected = REFUSED[name]
    (problem,) = policy.problems(ici, NOTHING, LIMITS)
    assert expected in problem
    assert not list(policy.problems(ici, ALL, LIMITS))


@pytest.mark.parametrize(
    "ici",
    [
        PLAIN,
        changed(local=Endpoint(PLAIN.local.ip, 0)),
        changed(local=Endpoint(PLAIN.local.ip, 1024)),
        changed(options={"SO_PRIORITY": 6, "SO_MARK": 0, "SO_RCVBUF": 6 << 20, "SO_BUF_LOCK": 2}),
        changed(local=Endpoint(ip_address("fe80::1"), 8080), device="eth0"),
    ],
)
def test_what_everybody_may(ici: Ici) -> None:
    assert not list(policy.problems(ici, NOTHING, LIMITS))


def test_ports_are_granted_one_by_one() -> None:
    rights = parse_rights("80,8000-8010")
    assert [port for port in (79, 80, 81, 7999, 8000, 8010, 8011) if rights.may_claim(port)] == [
        80,
        8000,
        8010,
    ]
    assert not rights.options
    assert parse_rights(str(ALL)) == ALL


def test_grants() -> None:
    assert parse_grant("www-data") == ("www-data", NOTHING)
    assert parse_grant("www-data:443,options") == ("www-data", Rights((range(443, 444),), True))


@pytest.mark.parametrize(
    "text", ["", ":80", "www:x", "www:0", "www:65536", "www:9-8", "www:-5", "www:8-", "www:1-2-3"]
)
def test_a_grant_that_makes_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        parse_grant(text)


def test_who_may_ask() -> None:
    allowed = Allowed({1000: NOTHING}, {50: parse_rights("80"), 51: parse_rights("options")})
    assert allowed.rights(1000, [1000]) == NOTHING
    assert allowed.rights(1001, [1001]) is None
    assert allowed.rights(0, [0]) is None
    assert allowed.rights(1001, [1001, 50]) == parse_rights("80")
    assert allowed.rights(1000, [51, 50, 50]) == parse_rights("80,options")
