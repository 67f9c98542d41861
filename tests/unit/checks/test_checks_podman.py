"""What stands in the way of moving a container of podman, by what podman says of it."""

from __future__ import annotations

from typing import Any

import pytest

from migrate.checks import podman
from migrate.errors import ProtocolError
from migrate.link import message_checks
from migrate.pb import session_pb2 as pb

PLAIN: dict[str, Any] = {
    "Mounts": [],
    "Config": {"Labels": {"ours": "yes"}},
    "HostConfig": {"NetworkMode": "bridge", "PortBindings": {}},
    "NetworkSettings": {"Networks": {"podman": {}}},
}


def codes(upper: str = "/upper", **changed: Any) -> list[str]:
    """Those of the reasons against PLAIN, with its parts *changed*."""
    said = dict(PLAIN)
    for name, value in changed.items():
        said[name] = said[name] | value if isinstance(said.get(name), dict) else value
    return [one.code for one in podman.reasons(said, upper)]


def test_nothing_against_a_plain_one() -> None:
    assert codes() == []


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"Mounts": [{"Name": "data", "Destination": "/data"}]}, "container-volumes"),
        ({"HostConfig": {"Tmpfs": {"/tmp": ""}}}, "container-volumes"),
        ({"Pod": "abc"}, "container-pod"),
        ({"Dependencies": ["abc"]}, "container-pod"),
        ({"ExecIDs": ["abc"]}, "container-exec"),
        ({"HostConfig": {"AutoRemove": True}}, "container-rm"),
        ({"HostConfig": {"Privileged": True}}, "container-devices"),
        ({"HostConfig": {"Devices": [{"PathOnHost": "/dev/kvm"}]}}, "container-devices"),
        ({"Config": {"Secrets": [{"Name": "password"}]}}, "container-secrets"),
        ({"Config": {"Healthcheck": {"Test": ["CMD", "true"]}}}, "container-healthcheck"),
        ({"Config": {"Labels": {"PODMAN_SYSTEMD_UNIT": "web.service"}}}, "container-unit"),
        ({"HostConfig": {"NetworkMode": "host"}}, "container-network"),
        ({"NetworkSettings": {"Networks": {"one": {}, "two": {}}}}, "container-network"),
        ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}}, "container-ports"),
        ({"Rootfs": "/srv"}, "container-storage"),
    ],
)
def test_each_is_a_reason(changed: dict[str, Any], code: str) -> None:
    assert codes(**changed) == [code]


def test_who_said_that_there_is_no_healthcheck_has_none() -> None:
    """As --no-healthcheck does, which the remedy names."""
    assert codes(Config={"Healthcheck": {"Test": ["NONE"]}}) == []


def test_a_secret_in_the_environment_is_a_reason() -> None:
    """Podman does not show it, but needs it at each start and exec."""
    (reason,) = podman.reasons(PLAIN, "/upper", {"KEY": "password"})
    assert reason.code == "container-secrets" and "password as KEY" in reason.text


def test_without_an_overlay_nobody_knows_what_it_has_written() -> None:
    assert codes(upper="") == ["container-storage"]


def test_all_at_once() -> None:
    both = {"Pod": "abc", "HostConfig": {"AutoRemove": True, "Tmpfs": {"/tmp": ""}}}
    assert codes(**both) == ["container-volumes", "container-pod", "container-rm"]


def said(**changed: Any) -> pb.ProcessInventory:
    """A message about one of podman's, with some fields *changed*."""
    fields = {"runtime": "podman", "name": "web", "bundle": "/var/lib/web", "archive": b"tar", "id": "0" * 64}
    return pb.ProcessInventory(container=pb.Container(**(fields | {"by": "runc"} | changed)))


def test_a_message_about_one_is_accepted() -> None:
    message_checks.check(said(networks=["podman"], addresses=["10.88.0.2"], image="1" * 64))


@pytest.mark.parametrize(
    "changed",
    [
        {"archive": b""},
        {"runtime": "runc"},
        {"id": "../../etc"},
        {"by": "/bin/sh"},
        {"networks": ["--all"]},
        {"image": "-f"},
        {"addresses": [""]},
    ],
)
def test_what_no_origin_says_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        message_checks.check(said(**({"image": "1" * 64} | changed)))
