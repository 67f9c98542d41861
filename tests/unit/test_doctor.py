"""`migrate doctor`: a line for each requirement, one object, and the exit status."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from migrate import cli, doctor
from migrate.checks.requirements import Finding
from migrate.request import Request, Way

ROOT = Path(__file__).resolve().parents[2]
GOOD = Finding("origin", "CRIU", True, "4.2 works")
BAD = Finding("destination", "agent", False, "it is \x1b[31mnot there", "Install it.")


def answers(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> list[Request]:
    asked: list[Request] = []

    def look(request: Request) -> list[Finding]:
        asked.append(request)
        return list(findings)

    monkeypatch.setattr(doctor, "_look", look)
    return asked


def test_all_is_met(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = answers(monkeypatch, GOOD)
    assert cli.main(["doctor"]) == 0
    assert re.fullmatch(r"ok  \S+  CRIU  4\.2 works\n", capsys.readouterr().out)
    assert asked == [Request(pid=0, host="", check=True)]


def test_one_is_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = answers(monkeypatch, GOOD, BAD)
    assert cli.main(["doctor", "--port", "2222", "--agent", "/opt/a", "root@b"]) == 3
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("ok ") and "  CRIU   4.2 works" in first
    assert second == "NO  root@b  agent  it is \\x1b[31mnot there -> Install it."
    assert asked == [Request(pid=0, host="root@b", check=True, way=Way(port=2222, agent="/opt/a"))]


def test_json_is_as_documented(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answers(monkeypatch, GOOD, BAD)
    assert cli.main(["doctor", "--json", "b"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["met"]) == (doctor.SCHEMA, False)
    assert [one["met"] for one in found["requirements"]] == [True, False]
    part = (ROOT / "docs/doctor.md").read_text()
    fields = {*found, *(f"requirements[].{name}" for one in found["requirements"] for name in one)}
    assert set(re.findall(r"^\| `(.*?)` \|", part, re.MULTILINE)) == fields
    (shown,) = re.findall(r"^\{.*\}$", part, re.MULTILINE)
    assert json.loads(shown).keys() == found.keys()
    assert json.loads(shown)["requirements"][0].keys() == found["requirements"][0].keys()


@pytest.mark.parametrize(
    "words", [["a", "b"], ["-oProxyCommand=x"], ["--port", "0", "b"], ["--agent", "", "b"]]
)
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", *words]) == 2
    assert capsys.readouterr().out == ""


def test_a_package_that_is_missing_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(_: Request) -> list[Finding]:
        raise ModuleNotFoundError("No module named 'paramiko'")

    monkeypatch.setattr(doctor, "_look", look)
    assert cli.main(["doctor", "b"]) == 3
    assert "No module named 'paramiko'" in capsys.readouterr().err
