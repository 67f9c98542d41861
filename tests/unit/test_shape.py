"""How large a file, a function or a class of the two packages may be; and that steps and states are typed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from radon.metrics import mi_visit

ROOT = Path(__file__).parents[2]
PACKAGES = ("migrate", "plugin/tcpcp")
LEAST_MAINTAINABILITY = 40.0
MOST_LINES = 40
MOST_ATTRIBUTES = 12

#: Values that mirror a format from outside, field by field and with its names, and that never change. To make
#: groups of their fields would be to invent a structure that the format has not, with one more object for each
#: group of each connection. A class that can change is never in here.
MIRRORS = {
    "plugin/tcpcp/kernel/diag.py Entry": "the kernel's struct inet_diag_msg and its attributes",
    "plugin/tcpcp/kernel/fields.py Numbers": "the kernel's struct tcp_sock",
    "plugin/tcpcp/record/ici.py Ici": "the ICI of the paper's Table 1; groups of that are records already",
}
#: Where states are made and given on: the type of each says what it has.
OF_STATES = ("origin", "destination", "recovery", "machine.py", "order.py", "states.py", "steps.py")
#: What Popen has only where it was asked for it.
PIPE = re.compile(r"(.*\.)?std(in|out) is not None")


def files(package: str) -> Iterator[tuple[str, str]]:
    """Name and text of each file, but those that are generated."""
    for path in sorted((ROOT / package).rglob("*.py")):
        if "pb" not in path.parts:
            yield str(path.relative_to(ROOT)), path.read_text()


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """All of them, its docstring's too."""
    return (node.end_lineno or 0) - node.lineno + 1


def attributes(node: ast.ClassDef) -> set[str]:
    """Those that it sets itself, and the fields of a record."""
    return {one.attr for one in stored(node)} | declared(node)


def stored(node: ast.AST) -> list[ast.Attribute]:
    """Where *node* sets something through ``self``."""
    return [
        one
        for one in ast.walk(node)
        if isinstance(one, ast.Attribute)
        and isinstance(one.ctx, ast.Store)
        and isinstance(one.value, ast.Name)
        and one.value.id == "self"
    ]


def declared(node: ast.ClassDef) -> set[str]:
    """What its body names with a type: the fields of a record."""
    return {
        one.target.id
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    }


def is_value(node: ast.ClassDef) -> bool:
    """A frozen dataclass, or a named tuple."""
    return any(ast.unparse(base) == "NamedTuple" for base in node.bases) or any(
        ast.unparse(one).startswith("dataclass(frozen=True") for one in node.decorator_list
    )


def classes(package: str) -> Iterator[tuple[str, ast.ClassDef]]:
    """Each with its name, which is that of its file and its own."""
    for name, text in files(package):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                yield f"{name} {node.name}", node


def constructors(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]


def ready(node: ast.ClassDef) -> set[str]:
    """What an object of it has when it is made."""
    made = {one.attr for constructor in constructors(node) for one in stored(constructor)}
    in_body = {
        target.id
        for one in node.body
        if isinstance(one, ast.Assign)
        for target in one.targets
        if isinstance(target, ast.Name)
    }
    accessors = {
        one.name
        for one in node.body
        if isinstance(one, ast.FunctionDef)
        and any(ast.unparse(its).endswith(".setter") for its in one.decorator_list)
    }
    return made | declared(node) | in_body | accessors


def empty(node: ast.ClassDef) -> set[str]:
    """What an object of it only has a place for when it is made."""
    found: set[str] = set()
    for one in (one for constructor in constructors(node) for one in ast.walk(constructor)):
        if isinstance(one, ast.Assign | ast.AnnAssign) and one.value and ast.unparse(one.value) == "None":
            targets = one.targets if isinstance(one, ast.Assign) else [one.target]
            found |= {target.attr for target in targets if isinstance(target, ast.Attribute)}
    return found


def late(found: Mapping[str, ast.ClassDef]) -> list[str]:
    """What any of these classes sets that was not there when an object of it was made."""
    named = {name.split()[-1]: node for name, node in found.items()}

    def had(node: ast.ClassDef) -> set[str]:
        bases = (named.get(ast.unparse(base).split(".")[-1].split("[")[0]) for base in node.bases)
        return ready(node).union(*(had(base) for base in bases if base is not None))

    return [
        f"{name}.{one}"
        for name, node in found.items()
        for one in sorted({one.attr for one in stored(node)} - had(node))
    ]


def filled(texts: Mapping[str, str]) -> list[str]:
    """Where another file fills a place that a class has left empty, by its name; a record is there to be filled."""
    trees = {name: ast.parse(text) for name, text in texts.items()}
    left, of_records = dict[str, set[str]](), set[str]()
    for name, tree in trees.items():
        for node in (one for one in ast.walk(tree) if isinstance(one, ast.ClassDef)):
            of_records |= set() if is_value(node) else declared(node)
            for one in empty(node):
                left.setdefault(one, set()).add(name)
    return [
        f"{name} {ast.unparse(one)}"
        for name, tree in trees.items()
        for one in (one for one in ast.walk(tree) if isinstance(one, ast.Attribute))
        if isinstance(one.ctx, ast.Store) and ast.unparse(one.value) != "self"
        if one.attr in left and name not in left[one.attr] and one.attr not in of_records
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_can_be_maintained(package: str) -> None:
    """By radon's index, from 0 to 100, as `radon mi` shows it: lines, branches, operators, share of comments."""
    found = {name: round(mi_visit(text, multi=True), 1) for name, text in files(package)}
    assert len(found) > 50
    assert {name: index for name, index in found.items() if index <= LEAST_MAINTAINABILITY} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_function_is_short(package: str) -> None:
    found = [
        (f"{name}:{node.lineno} {node.name}", lines(node))
        for name, text in files(package)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert len(found) > 500
    assert [one for one in found if one[1] > MOST_LINES] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_class_has_few_attributes(package: str) -> None:
    """What it sets through ``self``, and what a record declares: whoever reads the class has to know them all.

    It holds for records as well as for classes that do something: one with more fields has groups of them that
    belong together, which are records of their own then. The exceptions are :data:`MIRRORS`.
    """
    found = [(name, len(attributes(node))) for name, node in classes(package) if name not in MIRRORS]
    assert len(found) > 50
    assert [one for one in found if one[1] > MOST_ATTRIBUTES] == []


def test_exceptions_are_values_and_needed() -> None:
    found = {name: node for package in PACKAGES for name, node in classes(package) if name in MIRRORS}
    assert set(found) == set(MIRRORS)
    for name, node in found.items():
        assert is_value(node), name
        assert len(attributes(node)) > MOST_ATTRIBUTES, f"{name} is no exception any more"


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_made_late(package: str) -> None:
    """An object is whole when it is made: nobody has to know what must be called, or set, before what."""
    found = dict(classes(package))
    assert len(found) > 50
    assert late(found) == []
    assert filled(dict(files(package))) == []


def untyped(text: str) -> list[str]:
    """Where the code asks at run time for what the types should say: by a name, or whether it is there."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr"):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Assert):
            said = ast.unparse(node.test)
            found += [said] if said.endswith(" is not None") and not PIPE.fullmatch(said) else []
    return found


def test_steps_and_states_are_typed() -> None:
    """Nothing is run, or read of a state, by its name; nothing has to be asserted to be there already."""
    found = {name: untyped(text) for name, text in files("migrate") if name.split("/")[1] in OF_STATES}
    assert len(found) > 40
    assert {name: some for name, some in found.items() if some} == {}


def test_the_rules_can_fail() -> None:
    """The measures of this file, on what breaks each rule."""
    node = ast.parse(
        "class C:\n    a: int\n    def f(self):\n        self.b = self.c = 1\n        self.a += 1"
    ).body[0]
    assert isinstance(node, ast.ClassDef) and attributes(node) == {"a", "b", "c"} and not is_value(node)
    function = ast.parse("def f():\n" + "    x = 1\n" * MOST_LINES).body[0]
    assert isinstance(function, ast.FunctionDef) and lines(function) == MOST_LINES + 1
    assert mi_visit("".join(f"a{i} = b{i} + c{i} if d{i} else e{i}\n" for i in range(200)), multi=True) < 40
    assert late({"f C": node}) == ["f C.b", "f C.c"]
    empty_place = "class C:\n    def __init__(self):\n        self.a: int | None = None\n"
    assert filled({"c": empty_place + "c.a = 1", "d": "x.c.a = 1"}) == ["d x.c.a"]
    assert untyped("getattr(step, name)()\nassert self.sender is not None\nassert p.stdin is not None") == [
        "self.sender is not None",
        "getattr(step, name)",
    ]
