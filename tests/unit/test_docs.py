"""The documents name the tests that show what they say: each of them is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from migrate import arguments
from migrate.errors import Exit
from migrate.states import Outcome

HERE = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted({*HERE.glob("*.md"), *HERE.glob("docs/*.md"), *HERE.glob("*/README.md")})
CONTRIBUTING = HERE / "CONTRIBUTING.md"
MAP = HERE / "docs/architecture.md"
PACKAGES = {"migrate": "migrate", "tcpcp": "plugin/tcpcp"}
#: Rooms whose files are in a table, or a list, of their own.
WITH_TABLES = ("inventory", "endpoint", "kernel")
WORD = re.compile(r"`(\w+)`")
#: As pytest names a test; what stands in brackets is left to it.
NAMED = re.compile(r"\b(tests/[\w/]+\.py)::(\w+)")


def named(document: Path) -> set[tuple[str, str]]:
    return set(NAMED.findall(document.read_text()))


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(HERE)))
def test_what_is_named_is_there(document: Path) -> None:
    files = re.findall(r"\btests/[\w/]+\.py\b", document.read_text())
    wrong = [file for file in files if not (HERE / file).exists()]
    wrong += [
        f"{file}::{name}"
        for file, name in sorted(named(document))
        if not (HERE / file).exists() or name not in functions(HERE / file)
    ]
    assert wrong == []


def test_what_is_to_be_touched_is_there() -> None:
    """Files and folders that CONTRIBUTING.md names, as they are written there."""
    names = re.findall(
        r"`((?:migrate|plugin|images|docs|examples|tests|tools)/[\w./]*)`", CONTRIBUTING.read_text()
    )
    assert [name for name in names if not (HERE / name).exists()] == []
    assert len(names) > 20


def anchors(document: Path) -> set[str]:
    """Of its headings, as they are made of them where it is read."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(HERE)))
def test_what_is_linked_is_there(document: Path) -> None:
    """Files, and headings in them."""
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if "://" not in link and not (target.exists() and (not anchor or anchor in anchors(target))):
            wrong.append(link)
    assert wrong == []


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table whose first column is called *heading*."""
    (table,) = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_the_first_screens_of_the_readme() -> None:
    """What it is, six lines, two commands, two hosts of one's own, what is refused first: before all else."""
    text = (HERE / "README.md").read_text()
    assert len(text.splitlines()) <= 170
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[:4] == ["Try it", "On two hosts of your own", "The commands", "What is supported"]
    told = (HERE / "tools/demo.py").read_text() + (HERE / "migrate/report/text.py").read_text()
    shown = re.findall(r"^      (\w+) {3,}", text, re.MULTILINE)
    assert shown == ["frozen", "connections", "increments", "reconnected"]
    assert [one for one in shown if f'"{one}"' not in told and f"  {one} " not in told] == []


def test_what_is_refused_first_is_a_reason_that_there_is() -> None:
    """By its code, and with options that there are."""
    code = "".join(path.read_text() for path in (HERE / "migrate/checks").glob("*.py"))
    options = arguments.parser().format_help()
    found = rows((HERE / "README.md").read_text(), "Reason")
    names = [name for row in found for name in re.findall(r"`([a-z-]+)`", row[0])]
    assert len(names) > 5
    assert [name for name in names if f'"{name}"' not in code] == []
    assert [one for row in found for one in re.findall(r"`(--[a-z-]+)", row[2]) if one not in options] == []


def test_the_exit_statuses_of_the_readme() -> None:
    table = rows((HERE / "README.md").read_text(), "Status")
    found = {int(row[0]): row[1] for row in table}
    assert {*found} == {int(one) for one in Exit}
    assert {found[one] for one in found if found[one]} == {one.value for one in Outcome}


def parts(text: str) -> dict[str, str]:
    """Each package's part of the map: from its heading to the next one."""
    found = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return {name: part for name, part in zip(found[1::2], found[2::2], strict=True) if name in PACKAGES}


def missing(package: str, part: str) -> list[str]:
    """Files of *package* that *part* names in no row of their room; of a room with a table of its own nowhere."""
    named: dict[str, set[str]] = {}
    for room, row in re.findall(r"^\| (?:`([\w/]+?)/?`|beside the rooms) \|(.*)$", part, flags=re.MULTILINE):
        named.setdefault(room, {"__init__"}).update(WORD.findall(row))
    for room in WITH_TABLES:
        named[room] = {"__init__", *WORD.findall(part)}
    paths = (path.relative_to(HERE / PACKAGES[package]) for path in (HERE / PACKAGES[package]).rglob("*.py"))
    return [
        str(path)
        for path in sorted(paths)
        if path.parts[0] != "pb" and path.stem not in named.get("/".join(path.parts[:-1]), {"__init__"})
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_is_on_the_map(package: str) -> None:
    assert missing(package, parts(MAP.read_text())[package]) == []


def test_the_rooms_of_the_library_that_migrate_uses_are_named() -> None:
    (sentence,) = re.findall(r"which is a friend: it uses (.*?) directly", MAP.read_text(), flags=re.DOTALL)
    used = {
        module.split(".")[1]
        for path in (HERE / "migrate").rglob("*.py")
        for module in re.findall(r"^ *from (tcpcp\.\w+)", path.read_text(), flags=re.MULTILINE)
    }
    rooms = {path.parent.name for path in (HERE / "plugin/tcpcp").glob("*/__init__.py")}
    assert set(re.findall(r"`tcpcp\.(\w+)`", sentence)) == used & rooms


@pytest.mark.parametrize("name", ["docs/trust.md", "docs/security.md", "docs/paper.md"])
def test_promises_have_tests(name: str) -> None:
    """The pattern above finds what these documents are full of."""
    assert len(named(HERE / name)) > 20
