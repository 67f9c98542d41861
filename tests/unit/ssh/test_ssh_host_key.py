"""What is told of a host's key."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import paramiko

from migrate.ssh import host_key, known_hosts


def test_a_fingerprint_is_that_of_ssh_keygen(tmp_path: Path) -> None:
    key = paramiko.ECDSAKey.generate()
    (tmp_path / "key.pub").write_text(f"{key.get_name()} {key.get_base64()}\n")
    said = subprocess.run(
        ["ssh-keygen", "-lf", tmp_path / "key.pub"], capture_output=True, text=True, check=True
    )
    (entry,) = known_hosts.parse([f"h {key.get_name()} {key.get_base64()}"], "file")
    assert host_key._fingerprint(entry) == said.stdout.split()[1] == key.fingerprint


def test_a_key_that_makes_no_sense_costs_no_time() -> None:
    """An RSA key of three million bits: to parse it, only to name it, took seconds."""
    number = b"\x00\x06\x00\x00" + b"\x00" + b"\xff" * 0x5FFFF
    blob = b"\x00\x00\x00\x07ssh-rsa" + b"\x00\x00\x00\x03\x01\x00\x01" + number
    began = time.process_time()
    fingerprint = host_key._fingerprint(known_hosts.Entry(("h",), "ssh-rsa", blob, False, "file:1"))
    assert fingerprint.startswith("SHA256:")
    assert time.process_time() - began < 0.5
