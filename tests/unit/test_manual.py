"""The manual pages say what the commands say of themselves, and a program that checks pages has nothing to say."""

from __future__ import annotations

import filecmp
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from migrate import arguments, doctor, errors, settings
from migrate.criu import plugin_command, setup
from migrate.destination import usage
from migrate.lab import arguments as lab
from tcpcp import cli
from tcpcp.helper import __main__ as helper

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
#: Page -> the statuses of the command.
PAGES = {
    "manual/migrate.1": errors.MEANS,
    "manual/migrate-agent.8": usage.EXITS,
    "manual/migrate-criu.8": setup.EXITS,
    "manual/migrate-lab.1": lab.EXITS,
    "plugin/manual/tcpcp.1": cli.EXITS,
    "plugin/manual/tcpcp-helper.8": helper.EXITS,
}
CONFIGURATION = "manual/migrate.conf.5"
#: Words of a command that have options, or a help, of their own.
UNDER = {
    "migrate": [["plugin"], ["plugin", "install"], ["doctor"]],
    "migrate-lab": [[verb] for verb in lab.VERBS],
    "tcpcp": [["show"], ["sweep"]],
}


def helped(*words: str) -> str:
    """What a command says of itself, as installed here."""
    program = str(PROGRAMS / words[0])
    done = subprocess.run([program, *words[1:], "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(page: str) -> str:
    """A page as it is read, on lines as long as they have to be."""
    command = ["mandoc", "-Tascii", "-O", "width=300", str(ROOT / page)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return re.sub(r".\x08", "", text)


def test_every_command_has_a_page() -> None:
    told = [(ROOT / name / "setup.cfg").read_text() for name in (".", "plugin")]
    names = {
        name for text in told for name in re.findall(r"^    ([\w-]+) = \w+[\w.]*:main$", text, re.MULTILINE)
    }
    assert {Path(page).stem for page in PAGES} == {*names, "migrate-lab"}
    assert {str(path.relative_to(ROOT)) for path in ROOT.glob("**/manual/*.[1-9]")} == {*PAGES, CONFIGURATION}


def test_they_are_as_they_are_made(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "tools/manual.py", tmp_path], check=True, timeout=100)
    for folder in ("manual", "plugin/manual"):
        made = {path.relative_to(tmp_path) for path in (tmp_path / folder).rglob("*") if path.is_file()}
        assert made == {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()}
        _, different, unreadable = filecmp.cmpfiles(tmp_path, ROOT, map(str, made), shallow=False)
        assert (different, unreadable) == ([], []), "run `make manual` and commit the result"


@pytest.mark.parametrize("page", PAGES)
def test_every_option_and_every_status(page: str) -> None:
    name, text = Path(page).stem, shown(page)
    for words in ([], *UNDER.get(name, [])):
        options = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", helped(name, *words)))
        assert "--help" in options
        assert {one for one in options if not re.search(rf"(?<![\w-]){one}(?![\w-])", text)} == set(), words
    statuses = text.partition("EXIT STATUS")[2]
    for status, means in PAGES[page].items():
        said = means[:1].upper() + means[1:]
        assert re.search(rf"^ +{int(status)} +{re.escape(said)}\.$", statuses, re.MULTILINE), status


def test_the_statuses_of_what_takes_the_place_of_a_process() -> None:
    text = shown("manual/migrate.1")
    for name, exits in (("plugin", plugin_command.EXITS), ("doctor", doctor.EXITS)):
        statuses = text.partition(f"Exit status of migrate {name}")[2]
        for status, means in exits.items():
            assert re.search(
                rf"^ +{status} +{re.escape(means[:1].upper() + means[1:])}", statuses, re.MULTILINE
            )


def test_all_that_may_be_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each option is there, and the example is a file that is taken."""
    text = shown(CONFIGURATION)
    assert [key for key in settings.OPTIONS if not re.search(rf"^ +{key} = ", text, re.MULTILINE)] == []
    example = textwrap.dedent(text.partition("EXAMPLE\n")[2].partition("SEE ALSO")[0])
    (tmp_path / "config.toml").write_text(example)
    monkeypatch.setattr(settings, "SYSTEM", tmp_path / "config.toml")
    monkeypatch.setenv("HOME", str(tmp_path))
    options, said = settings.parsed(arguments.parser, ["42", "root@b.example"], settings.host_of)
    assert (options.port, options.transport, options.max_gap) == ("2222", "ssh", "5")
    assert said.before == (("/usr/local/bin/drain", "web"),)


def test_no_status_is_forgotten() -> None:
    assert {*errors.MEANS} == {*errors.Exit}


@pytest.mark.parametrize("page", [*PAGES, CONFIGURATION])
def test_nothing_is_wrong_with_a_page(page: str) -> None:
    lint = ["mandoc", "-Tlint", "-W", "warning", str(ROOT / page)]
    done = subprocess.run(lint, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("page", [*PAGES, CONFIGURATION])
def test_groff_has_nothing_to_say(page: str) -> None:
    command = ["groff", "-man", "-Tutf8", "-ww", "-z", str(ROOT / page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_value_that_the_shell_would_run_is_no_request_of_roff() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    from manual import escaped

    assert escaped(".so /etc/passwd") == "\\&.so /etc/passwd"
    assert escaped("-v \\n") == "\\-v \\en"
