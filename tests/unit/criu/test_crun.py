"""A crun without CRIU is told before anybody relies on it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from migrate.criu import configuration, crun, plugin_command
from migrate.errors import Exit

#: As Debian 12's and Debian testing's say it.
WITHOUT = """\
crun version 1.8.1
commit: f8a096be060b22ccd3d5f3ebe44108517fbf6c30
rundir: /run/crun
spec: 1.0.0
+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF +YAJL
"""
WITH = """\
crun version 1.28
commit: 54f16ffbefcd022bf032af768b5c5ce075c18bfc
rundir: /run/crun
spec: 1.0.0
+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF +CRIU +JSON_C
"""


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A crun is there that says what is in this file; CRIU's configuration, and systemd's, are not this host's."""
    for one in (configuration.install, configuration.installed, configuration.problems):
        monkeypatch.setattr(one, "__defaults__", (tmp_path / "criu",))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(plugin_command, "_RUNNING", tmp_path / "no-systemd")
    monkeypatch.setattr(plugin_command, "answers", lambda: True)
    program = tmp_path / "bin" / "crun"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/said\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return f"{tmp_path}/said"


def installed() -> list[str]:
    return [file.name for file in configuration.installed()]


def test_what_can_be_relied_on_is_told_by_crun(says: str) -> None:
    path = crun.program()
    assert path is not None and path.startswith(str(Path(says).parent))
    Path(says).write_text(WITH)
    assert crun.without_criu(path) == ""
    Path(says).write_text(WITHOUT)
    assert "crun version 1.8.1" in crun.without_criu(path)


def test_asked_for_crun_alone_it_is_refused(says: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(says).write_text(WITHOUT)
    assert plugin_command.main(["install", "--runtime", "crun"]) == Exit.UNTOUCHED
    assert "without CRIU" in capsys.readouterr().out
    assert installed() == []


@pytest.mark.parametrize("runtime", ["podman", "all"])
def test_with_others_it_is_noted(says: str, capsys: pytest.CaptureFixture[str], runtime: str) -> None:
    Path(says).write_text(WITHOUT)
    for words in (["install", "--runtime", runtime], ["status"]):
        assert plugin_command.main(words) == 0
        assert "note: " in (said := capsys.readouterr().out) and "without CRIU" in said
    assert "crun.conf" in installed()


def test_for_runc_it_does_not_matter(says: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(says).write_text(WITHOUT)
    assert plugin_command.main(["install", "--runtime", "runc"]) == 0
    assert plugin_command.main(["status"]) == 0
    assert "without CRIU" not in capsys.readouterr().out


def test_one_that_can_is_installed_for(says: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(says).write_text(WITH)
    assert plugin_command.main(["install", "--runtime", "crun"]) == 0
    assert "note" not in capsys.readouterr().out
    assert installed() == ["crun.conf"]


def test_where_there_is_none_it_is_noted(
    says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who installs it later has the plug-in then."""
    monkeypatch.setattr(crun, "program", lambda: None)
    assert plugin_command.main(["install", "--runtime", "crun"]) == 0
    assert "note: there is no crun here" in capsys.readouterr().out
