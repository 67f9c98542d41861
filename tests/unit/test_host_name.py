"""What a host is called in what a user reads, in namespaces where it is called so."""

from __future__ import annotations

import subprocess
import sys

import pytest

SAY = """
import socket, sys
from migrate import host_name
socket.sethostname(sys.argv[1])
print(host_name.here(other=sys.argv[2]))
"""


def said(name: str, other: str) -> str:
    command = ["unshare", "--uts", sys.executable, "-c", SAY, name, other]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


@pytest.mark.parametrize(
    "name, other, expected",
    [
        ("web1", "web2", "web1"),
        ("web1", "root@web1", "web1 (origin)"),
        ("web1", "", "web1"),
        ("localhost", "web2", "origin"),
        ("(none)", "web2", "origin"),
    ],
)
def test_it_has_its_name_or_its_part(name: str, other: str, expected: str) -> None:
    assert said(name, other) == expected
