"""Ctrl-C ends the command in words."""

from __future__ import annotations

import pytest

from migrate.lab import cli


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "dispatch", interrupted)
    assert cli.main(["--name", "no-such", "up"]) == 130
    assert capsys.readouterr().err == "migrate-lab: interrupted\n"
