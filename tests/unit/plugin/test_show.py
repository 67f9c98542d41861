"""The command `tcpcp`."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from golden_icis import DIRECTORY, GOLDEN
from hypothesis import given
from strategies import icis

from tcpcp import cli
from tcpcp.record import codec, text
from tcpcp.record.ici import Ici
from tcpcp.version import VERSION

GOOD = str(DIRECTORY / "established.ici")


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", str(DIRECTORY / f"{name}.ici")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{GOLDEN[name]}  {GOLDEN[name].state.name}")
    assert err == ""


def test_text_says_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["show", GOOD])
    out = capsys.readouterr().out
    ici = GOLDEN["established"]
    for expected in (
        "10.77.1.100:80 - 10.77.2.1:40000  ESTABLISHED  tag 15782",
        f"snd_una {ici.snd_una}  snd_nxt {ici.snd_nxt}  write_seq {ici.write_seq}",
        "timestamps, SACK, window scaling (snd_wscale 7, rcv_wscale 9)",
        "4 bytes  sha256 " + hashlib.sha256(b"sent").hexdigest()[:16],
        "SO_KEEPALIVE 1  SO_RCVBUF 131072  SO_SNDBUF 87040  TCP_KEEPIDLE 60",
    ):
        assert expected in out
    assert "unsent\n" not in out


@pytest.mark.parametrize("beginning", [b"", b"whole"])
def test_a_file_without_an_end_is_not_read_to_it(
    beginning: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device; here a file of 1 TB of nothing, of which no machine could read all."""
    path = tmp_path / "endless"
    path.write_bytes(Path(GOOD).read_bytes() if beginning else b"")
    os.truncate(path, 1 << 40)
    assert cli.main(["show", str(path)]) == 1
    out, err = capsys.readouterr()
    assert bool(out) == bool(beginning) and "expected an ICI record" in err


def test_fins_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["show", str(DIRECTORY / "last_ack_ipv6.ici")])
    assert capsys.readouterr().out.count("+ FIN") == 2
    cli.main(["show", str(DIRECTORY / "close_filter.ici")])
    assert "6 bytes  sha256" in (out := capsys.readouterr().out) and "+ FIN  shut by the application\n" in out
    cli.main(["show", str(DIRECTORY / "fin_wait2_mapped.ici")])
    out = capsys.readouterr().out
    assert "+ FIN" not in out
    assert "IPv4-mapped" in out


def test_json_is_one_object_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "many.ici"
    image.write_bytes(b"".join(codec.dumps(ici) for ici in GOLDEN.values()))
    assert cli.main(["show", "--json", str(image)]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["state"] for one in found] == [ici.state.name for ici in GOLDEN.values()]
    first = found[0]
    assert first["local"] == {"ip": "10.77.1.100", "port": 80}
    assert first["send_queue"]["sent"] == {
        "length_bytes": 4,
        "sha256": hashlib.sha256(b"sent").hexdigest()[:16],
    }
    assert [one["receive_queue"]["shut"] for one in found].count(True) == 1
    assert first["derived"] == {"snd_una": 16909056, "write_seq": 16909066, "copied_seq": 2999999994}


@given(icis())
def test_every_ici_can_be_shown(ici: Ici) -> None:
    assert json.loads(json.dumps(text.as_json(ici)))["snd_nxt"] == ici.snd_nxt
    assert str(ici) in text.as_text(ici)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_terminal_is_not_steered(as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is shown has not been checked, and may come from anywhere."""
    strange = dataclasses.replace(
        GOLDEN["established"], device="\x1b[2J\n\u202e", options={"\x07\u00e9": 1, "\u2028": 2}
    )
    (tmp_path / "x").write_bytes(codec.dumps(strange))
    assert cli.main(["show", *["--json"] * as_json, str(tmp_path / "x")]) == 0
    out, _ = capsys.readouterr()
    assert out.isascii() and out.replace("\n", "").isprintable()
    assert len(out.splitlines()) == (1 if as_json else len(text.as_text(GOLDEN["established"]).splitlines()))


def test_a_bad_record_is_named_and_the_good_ones_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = codec.dumps(GOLDEN["established"])
    image = tmp_path / "bad.ici"
    image.write_bytes(good + good[:-1])
    assert cli.main(["show", str(image), GOOD]) == 1
    out, err = capsys.readouterr()
    assert out.count("ESTABLISHED") == 2
    size = len(good) - 20
    assert err == (
        f"tcpcp: {image}: offset {len(good) + 20}: cut short: expected {size} bytes, found {size - 1}\n"
    )


def test_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.ici"
    empty.touch()
    assert cli.main(["show", str(tmp_path / "none.ici"), str(tmp_path), str(empty)]) == 1
    err = capsys.readouterr().err.splitlines()
    assert "No such file" in err[0]
    assert "Is a directory" in err[1]
    assert "empty" in err[2]


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    data = io.TextIOWrapper(io.BytesIO(Path(GOOD).read_bytes()))
    monkeypatch.setattr(sys, "stdin", data)
    assert cli.main(["show", "-"]) == 0
    assert "ESTABLISHED" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["show"], ["hide"], ["show", "--xml", GOOD]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2
    assert "usage: tcpcp" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"tcpcp {VERSION}\n"


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    image = tmp_path / "many.ici"
    image.write_bytes(Path(GOOD).read_bytes() * 2000)
    command = [sys.executable, "-m", "tcpcp.cli", "show", str(image)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize("images", [1, 2000])
def test_an_output_that_is_full(images: int, tmp_path: Path) -> None:
    """It is what is blamed, whether that comes out at the first line or at the end."""
    image = tmp_path / "many.ici"
    image.write_bytes(Path(GOOD).read_bytes() * images)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tcpcp.cli", "show", str(image)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (1, "tcpcp: standard output: No space left on device\n")


@pytest.mark.parametrize("there", [True, False])
def test_a_files_name_does_not_steer_the_terminal(
    there: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "b\u00e4d \x1b[2J\n\u202e"
    if there:
        path.write_bytes(b"junk")
    assert cli.main(["show", str(path)]) == 1
    _, err = capsys.readouterr()
    assert err.startswith(f"tcpcp: {tmp_path}/b\u00e4d \\x1b[2J\\n\\u202e: ")
