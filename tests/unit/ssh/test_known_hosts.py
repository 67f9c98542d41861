"""known_hosts files; the lines are what ssh-keygen writes."""

from __future__ import annotations

import base64

import pytest

from migrate.ssh import known_hosts
from migrate.ssh.known_hosts import Verdict

A, B = b"key-a", b"key-b"
ED = "ssh-ed25519"


def line(hosts: str, blob: bytes = A, kind: str = ED, marker: str = "") -> str:
    return f"{marker}{hosts} {kind} {base64.b64encode(blob).decode()} comment"


def verdict(text: str, name: str = "h", blob: bytes = A, kind: str = ED) -> Verdict:
    return known_hosts.judge(known_hosts.parse(text.splitlines(), "f"), name, kind, blob)[0]


# ssh-keygen -H of "h" and of "[h]:2222", with the salt 00 01 02 ... 13.
def hashed(name: str) -> str:
    import hashlib
    import hmac

    salt = bytes(range(20))
    digest = hmac.digest(salt, name.encode(), hashlib.sha1)
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("hosts", "name", "known"),
    [
        ("h", "h", True),
        ("H", "h", True),
        ("h", "hh", False),
        ("other,h,10.0.0.1", "h", True),
        ("other,h,10.0.0.1", "10.0.0.1", True),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "example.com", False),
        ("?", "h", True),
        ("*,!h", "h", False),
        ("!h,*", "g", True),
        ("[h]:2222", "[h]:2222", True),
        ("[h]:2222", "h", False),
        ("h", "[h]:2222", False),
        ("[*]:2222", "[g]:2222", True),
        ("fe80::1", "fe80::1", True),
        (hashed("h"), "h", True),
        (hashed("h"), "g", False),
        (hashed("[h]:2222"), "[h]:2222", True),
        ("|1|not|base64", "h", False),
        ("|1|", "h", False),
    ],
)
def test_names(hosts: str, name: str, known: bool) -> None:
    assert verdict(line(hosts), name) is (Verdict.KNOWN if known else Verdict.UNKNOWN)


def test_changed_only_if_no_line_has_the_key() -> None:
    assert verdict(line("h", B)) is Verdict.CHANGED
    assert verdict(line("h", B) + "\n" + line("h", A)) is Verdict.KNOWN


def test_known_by_another_type_only_is_unknown() -> None:
    text = line("h", B, "ssh-rsa")
    assert verdict(text) is Verdict.UNKNOWN
    assert known_hosts.kinds(known_hosts.parse([text], "f"), "h") == ["ssh-rsa"]


def test_revoked_wins() -> None:
    assert verdict(line("h") + "\n" + line("*", marker="@revoked ")) is Verdict.REVOKED
    assert verdict(line("h", A) + "\n" + line("*", B, marker="@revoked ")) is Verdict.KNOWN
    assert verdict(line("*", B, marker="@revoked ")) is Verdict.UNKNOWN


def test_certificate_authorities_are_not_taken_for_keys() -> None:
    assert verdict(line("h", marker="@cert-authority ")) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# h ssh-ed25519 AAAA",
        "h",
        "h ssh-ed25519",
        "h ssh-ed25519 !!!",
        "h ssh-ed25519 AAA\u00e9",
        "h ssh-ed25519 AAA",
        ", x AAAA",
    ],
)
def test_lines_that_make_no_sense_are_skipped(text: str) -> None:
    entries = known_hosts.parse([text, line("h")], "file")
    assert [entry.place for entry in entries] == ["file:2"]


def test_lookup_names() -> None:
    assert known_hosts.lookup_name("Host", 22) == "host"
    assert known_hosts.lookup_name("::1", 2222) == "[::1]:2222"
    assert known_hosts.lookup_name("h", 2222, "Alias") == "alias"
